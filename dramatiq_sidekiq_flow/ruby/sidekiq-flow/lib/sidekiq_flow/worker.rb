# frozen_string_literal: true

module SidekiqFlow::Companion
  # A job that has outlived so many workers within that time is a poison pill.
  MAX_RECOVERIES = 3
  RECOVERY_WINDOW = 72 * 3600

  # This process, as all other workers see it: the zset swf:workers holds one
  # member HOST:PID:NONCE:QUEUE for each of its queues, with its last beat. The
  # same beat says who has been silent for too long; whoever hears it first puts
  # the silent one's jobs back.
  class Worker
    include Sidekiq::Component

    WORKERS = "swf:workers"

    # The dead that one beat names, and how often it asks for more.
    PAGE = 16
    PAGES = 10

    # Seconds after which a suspect that still runs keeps no other back.
    TRIAL_TIME = 60

    def self.in_flight(member)
      "swf:inflight:#{member}"
    end

    def initialize(config, timeout)
      @config = config
      @timeout = Float(timeout)
      @interval = [10.0, @timeout / 5].min
      @lock = Mutex.new
      @wake = ConditionVariable.new
      @members = Set.new
      @fetchers = Set.new
      @held = Set.new
      @fetches = 0
      @unanswered = Hash.new { |bases, queue| bases[queue] = [] }
      @open = Set.new
      @left = Set.new
      @suspects = Hash.new { |members, queue| members[queue] = [] }
      @troubled = Set.new
      @thread = nil
    end

    def member(queue)
      "#{hostname.tr(":", "-")}:#{::Process.pid}:#{process_nonce}:#{queue}"
    end

    # Begins to beat for the queues of a fetcher.
    def join(fetcher, queues)
      @lock.synchronize do
        @fetchers << fetcher
        @members.merge(queues.map { |queue| member(queue) })
        unless @thread&.alive?
          @running = true
          @thread = safe_thread("flow heartbeat") { beat_on }
        end
      end
      beat
    end

    # The last fetcher to leave takes the process off: nothing stays in flight.
    def leave(fetcher)
      members = @lock.synchronize do
        return unless @fetchers.delete?(fetcher) && @fetchers.empty?

        @running = false
        @wake.broadcast
        @members.to_a.tap { @members.clear }
      end
      @thread&.join
      members.each do |member|
        hand_back(member)
      rescue RedisClient::Error, ConnectionPool::TimeoutError => error
        logger.warn("Jobs of #{member} in flight are left to be recovered by another worker: #{error.message}")
      end
    end

    # Yields the base of a receipt, which names one fetch of this process. One
    # whose reply did not come is used again, by whichever thread is next: the
    # script then gives back what it has moved.
    def with_base(queue)
      base = @lock.synchronize do
        (@unanswered[queue].pop || (@fetches += 1).to_s(16)).tap { |found| @open << found }
      end
      reply = yield base
    ensure
      if base
        @lock.synchronize do
          @unanswered[queue] << base if reply.nil?
          @open.delete(base)
        end
      end
    end

    # Dead workers that hold suspects of this queue: jobs that were at work in more
    # than one worker that died. Each is tried beside no other.
    def suspects(queue)
      @lock.synchronize { @suspects[queue].dup }
    end

    # Until a beat finds it again.
    def forget_suspects(queue, dead)
      @lock.synchronize { @suspects[queue].delete(dead) }
    end

    # {"TRIAL", payload}, in flight as BASE:1; {"WAIT"}, {"NONE"}.
    def try_suspect(queue, dead, base)
      own = member(queue)
      keys = [WORKERS, Worker.in_flight(dead), Worker.in_flight(own), "swf:trial:#{queue}", "paused"]
      reply = redis { |conn| Scripts.run(conn, "trial", keys, [dead, own, queue, @timeout.to_s, base, TRIAL_TIME]) }
      raise WrongType, "The Redis key #{reply[1].inspect} holds another type. Remove it." if reply[0] == "TYPE"
      return reply if reply[0] != "TRIAL"

      # From here on it counts, should this process die.
      begun = SidekiqFlow::Companion.patiently(logger) do
        redis { |conn| Scripts.run(conn, "begin", [Worker.in_flight(own)], ["#{base}:1?"]) }
      end
      (begun == 1) ? reply : ["NONE"]
    end

    # Whether a fetch from this queue has moved a job, perhaps, and nobody got it.
    def unanswered?(queue)
      @lock.synchronize { @unanswered[queue].any? }
    end

    def hold(unit)
      @lock.synchronize { @held << unit }
    end

    def release(unit)
      @lock.synchronize { @held.delete(unit) }
    end

    # For one that Redis can take nowhere: it stays in flight until the end.
    def leave_in_flight(unit)
      @lock.synchronize { @left << unit.receipt }
      release(unit)
    end

    def beat
      members = @lock.synchronize { @members.to_a }
      return if members.empty?

      held = @lock.synchronize { members.map { |member| @held.count { |unit| unit.member == member } } }
      stale, more, fanouts = redis { |conn| Scripts.run(conn, "beat", [WORKERS], [@timeout.to_s, 0, *members.zip(held).flatten]) }
      more.each { |member| reconcile(member) }
      recover_all(stale)
      redis { |conn| Fanouts.pour_all(conn, logger) } if fanouts == 1
    end

    private

    def beat_on
      loop do
        @lock.synchronize { @wake.wait(@lock, @interval) if @running }
        return unless @running

        begin
          beat
          put_back_abandoned
        rescue => error
          logger.warn("No heartbeat this time: #{error.message}")
        end
      end
    end

    # A thread that dies with a job in hand (not by an error of the job: Sidekiq
    # settles those) leaves it in flight of a process that lives.
    def put_back_abandoned
      abandoned = @lock.synchronize { @held.reject { |unit| unit.thread.alive? } }
      abandoned.each(&:requeue_now)
    end

    # A beat names so many of the dead; those that stay are passed over.
    def recover_all(stale)
      passed = 0
      @lock.synchronize { @suspects.clear }
      PAGES.times do
        passed += stale.count { |member| !recover_in_guard(member) }
        break if stale.size < PAGE

        stale, = redis { |conn| Scripts.run(conn, "beat", [WORKERS], [@timeout.to_s, passed]) }
      end
    end

    # One record at a time: one that cannot be read is in no other's way. True
    # where nothing of it is left.
    def recover_in_guard(member)
      return strike_off(member) unless readable?(member)

      recover(member).tap { @troubled.delete(member) }
    rescue => error
      raise if Trouble.passes?(error)

      logger.error("Worker #{member} is dead, and its jobs cannot be put back: #{error.message}") if @troubled.add?(member)
      false
    end

    # What is in flight here and in no thread's hands (a fetch that was delivered
    # late) goes back.
    def reconcile(member)
      receipts = redis { |conn| conn.call("HKEYS", Worker.in_flight(member)) }
      unknown = @lock.synchronize do
        known = [*@held.map(&:receipt), *@left]
        bases = [*@open, *@unanswered.each_value.flat_map(&:itself)]
        (receipts - known).reject { |receipt| suspect?(receipt) || bases.include?(receipt.b[/\A\h+(?=:)/n]) }
      end
      return if unknown.empty?

      redis { |conn| Scripts.run(conn, "requeue", [Worker.in_flight(member), "queue:#{queue_of(member)}"], unknown) }
      logger.warn("Put back #{unknown.size} jobs of queue #{queue_of(member)} that were in flight here and in no thread's hands.")
    rescue RedisClient::CommandError => error
      raise if Trouble.passes?(error)

      logger.error("What is in flight of #{member} cannot be compared: #{error.message}") if @troubled.add?(member)
    end

    # HOST:PID:NONCE:QUEUE. Nothing can be in flight under another name.
    def readable?(member)
      member.valid_encoding? && member.split(":", 4).size == 4
    end

    def strike_off(member)
      redis { |conn| conn.call("ZREM", WORKERS, member) }
      logger.error("Took out of #{WORKERS} what is not a worker: #{member.inspect[0, 200]}")
      true
    end

    def recover(member)
      queue = queue_of(member)
      error = PoisonPill.new("The job had begun when its worker died, #{MAX_RECOVERIES} times within " \
        "#{RECOVERY_WINDOW / 3600} hours. Look for what kills the process, then retry it.")
      waiting, jobs = in_flight(member).partition { |receipt, _| suspect?(receipt) }
      # What is pushed last is taken next.
      slices = jobs.sort_by { |receipt, _| receipt.b.split(":").map { |part| part.to_i(16) } }.reverse.each_slice(100).to_a
      slices = [[]] if slices.empty? # strikes the member off
      counts = [0, 0, 0]
      slices.each do |slice|
        orphans = slice.map { |receipt, raw| [receipt, jid(raw), SidekiqFlow::Companion.corpse(raw, error, queue)] }
        reply = recover_script(member, orphans, @timeout)
        raise WrongType, "The Redis key #{reply[1].inspect} holds another type. Remove it." if reply[0] == "TYPE"
        return false if reply[0] != "DONE"

        counts = counts.zip(reply[1, 3]).map(&:sum)
        keep(reply[4].map { |number| slice[number - 1].last })
        raise WrongType, "The Redis key \"dead\" is not a sorted set. Remove it." unless reply[5].empty?
      end
      alone = waiting.any? || counts[2] > 0
      @lock.synchronize { @suspects[queue] << member } if alone
      return !alone if counts.sum.zero?

      logger.warn("Worker #{member} is dead: #{counts[0]} of its jobs are back in queue #{queue}, #{counts[1]} are dead, #{counts[2]} run alone next.")
      !alone
    end

    # Dead jobs may be retried for as long as `dead` keeps them.
    def keep(payloads)
      payloads.each do |raw|
        keys, ttl = SidekiqFlow::Companion.needs(SidekiqFlow::Companion.parse(raw) || {})
        ttl += config[:dead_timeout_in_seconds]
        redis { |conn| Scripts.run(conn, "extend", ["", *keys], [ttl, 0]) } unless keys.empty?
      end
    end

    def recover_script(member, orphans, timeout)
      keys = [WORKERS, Worker.in_flight(member), "queue:#{queue_of(member)}", "dead"]
      keys.concat(orphans.map { |_, jid, _| "swf:recovered:#{jid}" })
      arguments = [member, timeout.to_s, MAX_RECOVERIES, RECOVERY_WINDOW, Time.now.to_f.to_s]
      arguments.concat(orphans.flat_map { |receipt, _, corpse| [receipt, corpse] })
      redis { |conn| Scripts.run(conn, "recover", keys, arguments) }
    end

    # Marked when this process was taken for dead; it waits for its trial.
    def suspect?(receipt)
      receipt.end_with?("!")
    end

    def queue_of(member)
      member.split(":", 4).fetch(3)
    end

    def jid(raw)
      id = SidekiqFlow::Companion.parse(raw)&.fetch("jid", nil)
      (id.is_a?(String) && !id.empty?) ? id : SidekiqFlow::Companion.fingerprint(raw)
    end

    def in_flight(member)
      fields = redis { |conn| conn.call("HGETALL", Worker.in_flight(member)) }
      fields.is_a?(Array) ? fields.each_slice(2).to_h : fields
    end

    # Threads that still work finish into nothing: their jobs run again
    # elsewhere, as after any hard shutdown of Sidekiq.
    def hand_back(member)
      3.times do
        receipts = in_flight(member).keys.reject { |receipt| suspect?(receipt) }.sort_by { |receipt| receipt.to_i(16) }
        unless receipts.empty?
          redis { |conn| Scripts.run(conn, "requeue", [Worker.in_flight(member), "queue:#{queue_of(member)}"], receipts) }
        end
        # Strikes the member off, unless a thread has just fetched once more.
        recover_script(member, [], 0)
        return if redis { |conn| conn.call("ZSCORE", WORKERS, member) }.nil?
      end
    end
  end
end
