# frozen_string_literal: true

module SidekiqFlow::Companion
  # This process as other workers see it: the sorted set swf:workers holds a member
  # HOST:PID:NONCE:QUEUE for each of its queues, scored by its last heartbeat. A
  # heartbeat also returns the members that were silent for too long; the worker
  # that hears of one first puts its jobs back.
  class Worker
    include Sidekiq::Component

    WORKERS = "swf:workers"

    # The longest time between two heartbeats, in seconds.
    MAX_INTERVAL = 10.0

    attr_reader :suspects

    # +timeout+: seconds without a heartbeat after which a worker is dead.
    def initialize(config, timeout)
      @config = config
      @timeout = Float(timeout)
      @interval = [MAX_INTERVAL, @timeout / 5].min
      @suspects = Suspects.new(config, @timeout)
      @recovery = Recovery.new(config, @timeout, @suspects)
      @lock = Mutex.new
      @wake = ConditionVariable.new
      @members = Set.new
      @fetchers = Set.new
      @held = Set.new
      @left = Set.new
      @fetches = 0
      @open = Set.new
      @unanswered = Hash.new { |bases, queue| bases[queue] = [] }
      @thread = nil
    end

    def member(queue)
      "#{Member.identity}:#{queue}"
    end

    # Begins to send heartbeats for the queues of a fetcher.
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

    # The last fetcher to leave deregisters the process: nothing stays in flight.
    def leave(fetcher)
      members = @lock.synchronize do
        return unless @fetchers.delete?(fetcher) && @fetchers.empty?

        @running = false
        @wake.broadcast
        @members.to_a.tap { @members.clear }
      end
      @thread&.join
      members.each { |member| hand_back(member) }
    end

    # Yields the base of a receipt, which names one fetch of this process. If the
    # reply of a fetch was lost, its base is used again by the next thread: the
    # script then returns the job that it has moved.
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

    # Whether a fetch from this queue may have moved a job that no thread received.
    def unanswered?(queue)
      @lock.synchronize { @unanswered[queue].any? }
    end

    def hold(unit)
      @lock.synchronize { @held << unit }
    end

    def release(unit)
      @lock.synchronize { @held.delete(unit) }
    end

    # For a job that Redis can store nowhere else: it stays in flight until this
    # process ends.
    def leave_in_flight(unit)
      @lock.synchronize { @left << unit.receipt }
      release(unit)
    end

    # Sends a heartbeat, and recovers the workers that it reports as dead.
    def beat
      members = @lock.synchronize { @members.to_a }
      return if members.empty?

      arguments = [@timeout.to_s, 0, *members.zip(held_by(members)).flatten]
      found = Replies.beat(redis { |conn| Scripts.run(conn, "beat", [WORKERS], arguments) })
      found.differing.each { |member| reconcile(member) }
      @recovery.recover_all(found.dead)
      redis { |conn| Fanouts.pour_all(conn, logger) } if found.fanouts
    end

    private

    def beat_on
      loop do
        @lock.synchronize { @wake.wait(@lock, @interval) if @running }
        return unless @running

        begin
          beat
          requeue_abandoned
        rescue => error
          logger.warn("The heartbeat failed, the next one tries again: #{error.message}")
        end
      end
    end

    def held_by(members)
      @lock.synchronize { members.map { |member| @held.count { |unit| unit.member == member } } }
    end

    # A thread that died with its job (not by an error of the job: Sidekiq settles
    # those) has left it in flight of a process that lives.
    def requeue_abandoned
      abandoned = @lock.synchronize { @held.reject { |unit| unit.thread.alive? } }
      abandoned.each(&:requeue_now)
    end

    # Puts back jobs that are in flight here and that no thread holds: those of a
    # fetch that was delivered late, and suspects that were marked while this process
    # was taken for dead. A worker that lives has no trials, so they would wait until it ends.
    def reconcile(member)
      receipts = redis { |conn| conn.call("HKEYS", Member.in_flight(member)) }
      unknown = unknown(receipts)
      return if unknown.empty?

      @recovery.requeue(member, unknown)
      logger.warn("Put back #{unknown.size} jobs of queue #{Member.queue(member)} that were in flight here " \
        "and that no thread held.")
    rescue RedisClient::CommandError => error
      raise if Trouble.passes?(error)

      @recovery.log_once(member, "The jobs in flight of #{member} cannot be compared: #{error.message}")
    end

    def unknown(receipts)
      @lock.synchronize do
        known = [*@held.map(&:receipt), *@left]
        bases = [*@open, *@unanswered.each_value.flat_map(&:itself)]
        (receipts - known).reject { |receipt| bases.include?(receipt.b[/\A\h+(?=:)/n]) }
      end
    end

    def hand_back(member)
      @recovery.hand_back(member)
    rescue RedisClient::Error, ConnectionPool::TimeoutError => error
      logger.warn("Jobs of #{member} stay in flight for another worker to recover: #{error.message}")
    end
  end
end
