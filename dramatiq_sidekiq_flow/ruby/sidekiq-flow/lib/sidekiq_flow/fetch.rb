# frozen_string_literal: true

module SidekiqFlow::Companion
  # Sidekiq's fetcher (config[:fetch_class]): takes jobs from the queues into flight.
  class Fetch
    include Sidekiq::Component

    # Seconds that a thread blocks: TIMEOUT until it checks whether the process is to
    # stop, BRIEF if there are more queues than threads that watch them.
    TIMEOUT = 2
    BRIEF = 0.2

    # Seconds until a queue that is not a list is read again.
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
      if order.empty? # each of them is shunned
        sleep(TIMEOUT)
        return nil
      end
      Unit.fetched = take_from(order)
    rescue RedisClient::Error, ConnectionPool::TimeoutError => error
      raise unless Trouble.passes?(error)

      # Sidekiq would log the backtrace of each thread.
      Trouble.log(logger, error)
      sleep(1)
      nil
    end

    # Called by Sidekiq's Manager at shutdown, with the jobs of threads that it is
    # about to kill.
    def bulk_requeue(units)
      return if units.empty?

      units.each(&:requeue_now)
      logger.info("Put #{units.size} jobs back")
    rescue => error
      logger.warn("Could not put #{units.size} jobs back, another worker will do it: #{error.message}")
    end

    # Called when the Manager of this capsule has stopped.
    def sign_off
      worker.leave(self)
    rescue => error
      logger.warn("This worker could not deregister, another one will recover its jobs: #{error.message}")
    end

    private

    def join
      worker.join(self, @queues.uniq)
      @joined = true
    end

    # A unit, or nil. Watches the queues if all of them are empty.
    def take_from(order)
      first(order) { |queue| suspect(queue) } || first_filled(order)
    end

    def first_filled(order)
      candidates = (order.size > 2) ? filled(order) : order
      unit = first(candidates) { |queue| fetch(queue) }
      return unit if unit

      watch(order) if candidates.size == order.size || candidates.empty?
      nil
    end

    def first(queues)
      queues.each do |queue|
        unit = shunning(queue) { yield queue }
        return unit if unit
      end
      nil
    end

    # Takes one job, as Sidekiq's own fetcher does: a thread holds what it runs.
    def fetch(queue)
      member = worker.member(queue)
      keys = ["queue:#{queue}", Member.in_flight(member), Worker::WORKERS]
      worker.with_base(queue) do |base|
        payload = Replies.fetch(redis { |conn| Scripts.run(conn, "fetch", keys, [member, base, 1, 1, "", 0]) })
        return register_again if payload == :unregistered

        payload ? runnable(Unit.new(self, queue, member, "#{base}:1", payload)) : false
      end
    end

    def register_again
      logger.warn("This worker missed its heartbeats and was declared dead; re-registering under the same identity.")
      worker.beat
      nil
    end

    # Takes a suspect of a dead worker, if one waits and no other is tried.
    def suspect(queue)
      trials = "trial of #{queue}"
      holders = worker.suspects.holders(queue)
      holders = [""] if holders.empty? && worker.unanswered?(trials)
      holders.each do |dead|
        unit = worker.with_base(trials) { |base| try_suspect(queue, dead, base) }
        return unit if unit
      end
      nil
    end

    def try_suspect(queue, dead, base)
      member = worker.member(queue)
      payload = worker.suspects.try(queue, dead, member, base)
      return runnable(Unit.new(self, queue, member, "#{base}:1", payload)) if payload

      worker.suspects.forget(queue, dead)
      false
    end

    # The unit, or false if it must not run: then it is in `dead`.
    def runnable(unit)
      error = Payload.fault(unit.job)
      return unit if error.nil?

      unit.bury(error)
      false
    end

    # Leaves a queue alone for a while if it is not a list, so that it neither stops
    # other queues nor fills the log.
    def shunning(queue)
      yield
    rescue RedisClient::CommandError, WrongType => error
      raise if Trouble.passes?(error)

      logger.error("Queue #{queue} cannot be read, trying again in #{SHUN} seconds: #{error.message}")
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
      lengths = redis do |conn|
        conn.pipelined { |pipeline| order.each { |queue| pipeline.call("LLEN", "queue:#{queue}") } }
      end
      order.zip(lengths).select { |queue, length| length > 0 || worker.unanswered?(queue) }.map(&:first)
    rescue RedisClient::CommandError
      order # one of them is not a list: read each by itself
    end

    # Blocks until a queue holds something, and leaves it as it was: BLMOVE of a
    # list's end onto itself, so the job has no second place where a crash could
    # leave it. One thread watches one queue; when it has found something, the next
    # thread takes its place.
    def watch(order)
      queue = choose_to_watch(order)
      return if queue.nil?

      seconds = (@watched.size == order.size) ? TIMEOUT : BRIEF
      key = "queue:#{queue}"
      shunning(queue) { redis { |conn| conn.blocking_call(seconds, "BLMOVE", key, key, "RIGHT", "RIGHT", seconds) } }
    ensure
      stop_watching(queue) if queue
    end

    # A queue that no thread watches; nil, after a wait, if there is none.
    def choose_to_watch(order)
      @lock.synchronize do
        free = order.find { |name| !@watched.include?(name) }
        if free.nil?
          @left.wait(@lock, TIMEOUT)
        else
          @watched << free
        end
        free
      end
    end

    def stop_watching(queue)
      @lock.synchronize do
        @watched.delete(queue)
        @left.signal
      end
    end
  end
end
