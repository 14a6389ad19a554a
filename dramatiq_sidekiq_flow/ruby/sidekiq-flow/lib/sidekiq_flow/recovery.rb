# frozen_string_literal: true

module SidekiqFlow::Companion
  # Puts back the jobs that dead workers had in flight.
  class Recovery
    include Sidekiq::Component

    # A job that was running in so many workers when they died, within that many
    # seconds, is a poison pill: it goes to `dead`.
    MAX_RECOVERIES = 3
    RECOVERY_WINDOW = 72 * 3600

    # The number of dead workers that one heartbeat names, and how often it asks
    # for more of them.
    PAGE = 16
    PAGES = 10

    # Jobs that one script call puts back.
    SLICE = 100

    def initialize(config, timeout, suspects)
      @config = config
      @timeout = timeout
      @suspects = suspects
      @troubled = Set.new
    end

    # Recovers the workers that a heartbeat has named, and asks for further ones:
    # those that cannot be recovered are passed over.
    def recover_all(stale)
      passed = 0
      @suspects.clear
      PAGES.times do
        passed += stale.count { |member| !recover_guarded(member) }
        break if stale.size < PAGE

        reply = redis { |conn| Scripts.run(conn, "beat", [Worker::WORKERS], [@timeout.to_s, passed]) }
        stale = Replies.beat(reply).dead
      end
    end

    # Puts back what a member of this process has in flight, and removes it from
    # the workers. Threads that still work lose their job: it runs again elsewhere,
    # as after any hard shutdown of Sidekiq.
    def hand_back(member)
      3.times do
        receipts = in_flight(member).keys.reject { |receipt| Suspects.receipt?(receipt) }
        requeue(member, receipts.sort_by { |receipt| receipt.to_i(16) }) unless receipts.empty?
        # Removes the member, unless a thread has just fetched once more.
        run_script(member, [], 0)
        return if redis { |conn| conn.call("ZSCORE", Worker::WORKERS, member) }.nil?
      end
    end

    def requeue(member, receipts)
      keys = [Member.in_flight(member), "queue:#{Member.queue(member)}"]
      redis { |conn| Scripts.run(conn, "requeue", keys, receipts) }
    end

    # Logs an error that a record of Redis causes, once for each member.
    def log_once(member, text)
      logger.error(text) if @troubled.add?(member)
    end

    private

    # Recovers one member; an error in its record does not stop the others.
    # Returns whether nothing of the member is left.
    def recover_guarded(member)
      return deregister(member) unless Member.valid?(member)

      recover(member).tap { @troubled.delete(member) }
    rescue => error
      raise if Trouble.passes?(error)

      log_once(member, "Worker #{member} is dead, and its jobs cannot be put back: #{error.message}")
      false
    end

    def deregister(member)
      redis { |conn| conn.call("ZREM", Worker::WORKERS, member) }
      logger.error("Removed an entry of #{Worker::WORKERS} that does not name a worker: #{member.inspect[0, 200]}")
      true
    end

    def recover(member)
      waiting, jobs = in_flight(member).partition { |receipt, _| Suspects.receipt?(receipt) }
      parts = []
      slices(jobs).each do |slice|
        recovered = recover_slice(member, slice)
        return false if recovered.nil?

        parts << recovered
      end
      has_suspects = waiting.any? || parts.any? { |part| part.alone > 0 }
      @suspects.add(Member.queue(member), member) if has_suspects
      log_recovered(member, parts)
      !has_suspects
    end

    # The job that is pushed last is taken next. An empty slice deregisters a
    # member that has nothing in flight.
    def slices(jobs)
      newest_first = jobs.sort_by { |receipt, _| receipt.b.split(":").map { |part| part.to_i(16) } }.reverse
      newest_first.empty? ? [[]] : newest_first.each_slice(SLICE)
    end

    # What was recovered, or nil if the member lives.
    def recover_slice(member, slice)
      queue = Member.queue(member)
      orphans = slice.map do |receipt, raw|
        [receipt, Payload.jid(Payload.parse(raw), raw), Payload.dead(raw, poison_pill, queue)]
      end
      recovered = Replies.recover(run_script(member, orphans, @timeout))
      return nil if recovered.nil?

      extend_lifetimes(recovered.buried.map { |number| slice[number - 1].last })
      raise WrongType, "The Redis key \"dead\" is not a sorted set. Remove it." unless recovered.kept.empty?

      recovered
    end

    def poison_pill
      PoisonPill.new("The job had begun when its worker died, #{MAX_RECOVERIES} times within " \
        "#{RECOVERY_WINDOW / 3600} hours. Look for what kills the process, then retry it.")
    end

    # Dead jobs may be retried for as long as `dead` keeps them.
    def extend_lifetimes(payloads)
      payloads.each do |raw|
        keys, ttl = Lifetimes.needs(Payload.parse(raw) || {})
        ttl += config[:dead_timeout_in_seconds]
        redis { |conn| Scripts.run(conn, "extend", ["", *keys], [ttl, 0]) } unless keys.empty?
      end
    end

    def run_script(member, orphans, timeout)
      keys = [Worker::WORKERS, Member.in_flight(member), "queue:#{Member.queue(member)}", "dead"]
      keys.concat(orphans.map { |_, jid, _| "swf:recovered:#{jid}" })
      arguments = [member, timeout.to_s, MAX_RECOVERIES, RECOVERY_WINDOW, Time.now.to_f.to_s]
      arguments.concat(orphans.flat_map { |receipt, _, dead| [receipt, dead] })
      redis { |conn| Scripts.run(conn, "recover", keys, arguments) }
    end

    def in_flight(member)
      fields = redis { |conn| conn.call("HGETALL", Member.in_flight(member)) }
      fields.is_a?(Array) ? fields.each_slice(2).to_h : fields
    end

    def log_recovered(member, parts)
      back = parts.sum(&:back)
      dead = parts.sum(&:dead)
      alone = parts.sum(&:alone)
      return if (back + dead + alone).zero?

      logger.warn("Worker #{member} is dead: #{back} of its jobs are back in queue #{Member.queue(member)}, " \
        "#{dead} are dead, #{alone} run alone next.")
    end
  end
end
