# frozen_string_literal: true

module SidekiqFlow::Companion
  # Takes jobs from the queues into flight; Sidekiq's own way to plug that in.
  class Fetch
    include Sidekiq::Component

    # Seconds until a thread looks whether the process is to stop, and until one
    # looks again when there are more queues than threads to watch them.
    TIMEOUT = 2
    BRIEF = 0.2

    # Seconds until a queue that is not a list is looked at again.
    SHUN = 10

    attr_reader :worker, :retrier

    def initialize(capsule)
      @config = capsule
      @worker = capsule[:flow_worker]
      @retrier = Retry.new(capsule)
      @queues = capsule.queues.dup
      @strict = capsule.mode == :strict
      @lock = Mutex.new
      @watched = Set.new
      @left = ConditionVariable.new
      @shunned = {}
      @joined = false
    end

    def retrieve_work
      Unit.fetched = nil
      join unless @joined
      order = (@strict ? @queues : @queues.shuffle).uniq.reject { |queue| shunned?(queue) }
      if order.empty? # all of them paused, or no lists
        sleep(TIMEOUT)
        return nil
      end
      order.each do |queue|
        unit = shunning(queue) { suspect(queue) }
        return Unit.fetched = unit if unit
      end
      candidates = (order.size > 2) ? filled(order) : order
      candidates.each do |queue|
        unit = shunning(queue) { fetch(queue) }
        return Unit.fetched = unit if unit
      end
      watch(order) if candidates.size == order.size || candidates.empty?
      nil
    rescue RedisClient::Error, ConnectionPool::TimeoutError => error
      raise unless Trouble.passes?(error)

      # Sidekiq would write the backtrace of each thread.
      Trouble.say(logger, error)
      sleep(1)
      nil
    end

    # Sidekiq's Manager at the end: the jobs of threads that it will kill.
    def bulk_requeue(units)
      return if units.empty?

      units.each(&:requeue_now)
      logger.info("Put #{units.size} jobs back")
    rescue => error
      logger.warn("Could not put #{units.size} jobs back, another worker will: #{error.message}")
    end

    # When the Manager of this capsule has stopped.
    def sign_off
      worker.leave(self)
    rescue => error
      logger.warn("Could not sign off, another worker will find out: #{error.message}")
    end

    private

    def join
      worker.join(self, @queues.uniq)
      @joined = true
    end

    # One at a time, as Sidekiq's own: a thread holds what it works on.
    def fetch(queue)
      member = worker.member(queue)
      keys = ["queue:#{queue}", Worker.in_flight(member), Worker::WORKERS]
      worker.with_base(queue) do |base|
        reply = redis { |conn| Scripts.run(conn, "fetch", keys, [member, base, 1, 1, "", 0]) }
        raise WrongType, "The Redis key #{reply[1].inspect} holds another type. Remove it." if reply && reply[0] == "TYPE"

        if reply.nil?
          logger.warn("This worker was taken for dead; it goes on under the same name.")
          worker.beat
          return nil
        end
        reply[0].empty? ? false : runnable(Unit.new(self, queue, member, "#{base}:1", reply[1]))
      end
    end

    # A suspect of a dead worker, where one waits and no other is tried.
    def suspect(queue)
      trials = "trial of #{queue}"
      members = worker.suspects(queue)
      members = [""] if members.empty? && worker.unanswered?(trials)
      members.each do |dead|
        unit = worker.with_base(trials) do |base|
          kind, payload = worker.try_suspect(queue, dead, base)
          worker.forget_suspects(queue, dead) if kind != "TRIAL"
          (kind == "TRIAL") ? runnable(Unit.new(self, queue, worker.member(queue), "#{base}:1", payload)) : false
        end
        return unit if unit
      end
      nil
    end

    # False for one that is not to run: it is in `dead`.
    def runnable(unit)
      error = SidekiqFlow::Companion.fault(unit.job)
      return unit if error.nil?

      unit.bury(error)
      false
    end

    # A queue that is not a list stops no other queue, and fills no log.
    def shunning(queue)
      yield
    rescue RedisClient::CommandError, WrongType => error
      raise if Trouble.passes?(error)

      logger.error("Queue #{queue} cannot be read, and is left alone for #{SHUN} seconds: #{error.message}")
      @lock.synchronize { @shunned[queue] = now + SHUN }
      nil
    end

    def shunned?(queue)
      @lock.synchronize { @shunned[queue]&.then { |until_then| now < until_then } }
    end

    def now
      ::Process.clock_gettime(::Process::CLOCK_MONOTONIC)
    end

    # The queues that hold something, in the same order; one round trip.
    def filled(order)
      lengths = redis { |conn| conn.pipelined { |pipeline| order.each { |queue| pipeline.call("LLEN", "queue:#{queue}") } } }
      order.zip(lengths).select { |queue, length| length > 0 || worker.unanswered?(queue) }.map(&:first)
    rescue RedisClient::CommandError
      order # one of them is not a list: each is asked for itself
    end

    # Blocks until a queue holds something, and leaves it as it was: BLMOVE of a
    # list's end onto itself, so the job has no second place where a crash could
    # leave it. One thread watches one queue; the next takes its place when it
    # has found something.
    def watch(order)
      queue = @lock.synchronize do
        free = order.find { |name| !@watched.include?(name) }
        if free.nil?
          @left.wait(@lock, TIMEOUT)
          return
        end
        @watched << free
        free
      end
      seconds = (@watched.size == order.size) ? TIMEOUT : BRIEF
      key = "queue:#{queue}"
      shunning(queue) { redis { |conn| conn.blocking_call(seconds, "BLMOVE", key, key, "RIGHT", "RIGHT", seconds) } }
    ensure
      if queue
        @lock.synchronize do
          @watched.delete(queue)
          @left.signal
        end
      end
    end
  end
end
