# frozen_string_literal: true

module SidekiqFlow::Companion
  # A job in flight; what Sidekiq calls a unit of work. It leaves flight once:
  # by an advance, a failure, a requeue or, where none of them came first, by
  # Sidekiq's acknowledge.
  class Unit
    FETCHED = :flow_fetched
    CURRENT = :flow_current

    class << self
      # What the fetcher has given to this thread, until its middleware takes it.
      def fetched=(unit)
        Thread.current[FETCHED] = unit
      end

      def fetched
        Thread.current[FETCHED]
      end

      def take
        Thread.current[FETCHED].tap { Thread.current[FETCHED] = nil }
      end

      # The unit whose middleware runs on this thread; nil for a job that another
      # one performs inline.
      def current
        Thread.current[CURRENT]
      end

      def with(unit)
        before = current
        Thread.current[CURRENT] = unit
        yield
      ensure
        Thread.current[CURRENT] = before
      end
    end

    # +queue_name+ and +job+ (the payload, as it stood in Redis) are read by
    # Sidekiq's Processor.
    attr_reader :queue_name, :job, :receipt, :member, :thread

    # The job's Completion, once it was done.
    attr_accessor :completion

    def initialize(fetcher, queue, member, receipt, payload)
      @fetcher = fetcher
      @queue_name = queue
      @member = member
      @receipt = receipt
      @job = SidekiqFlow::Companion.unwrapped(payload)
      @thread = Thread.current
      @settled = false
      worker.hold(self)
    end

    def queue
      "queue:#{queue_name}"
    end

    def key
      Worker.in_flight(@member)
    end

    def config
      @fetcher.config
    end

    def retrier
      @fetcher.retrier
    end

    # Sidekiq calls this when it has nothing more to do with the job, whatever
    # became of it. Most have left flight by then.
    #
    # What has not: plain jobs that are done, jobs that are discarded, and steps
    # that were pushed again. Those are in their queue first and leave flight
    # second: a crash between the two runs such a step twice, under the same jid,
    # which a barrier counts once.
    def acknowledge
      settle { |conn| conn.call("HDEL", key, receipt) }
    end

    # To the end of the queue that is taken from next.
    def requeue
      settle { |conn| Scripts.run(conn, "requeue", [key, queue], [receipt]) }
    end

    # The same, where there is no time to wait for the server.
    def requeue_now
      return if @settled

      config.redis { |conn| Scripts.run(conn, "requeue", [key, queue], [receipt]) }
      settled
    rescue RedisClient::CommandError => error
      raise if Trouble.passes?(error)

      leave(error)
    end

    def settled?
      @settled
    end

    # Runs advance.lua; gives its reply.
    def advance(keys, arguments)
      reply = config.redis { |conn| Scripts.run(conn, "advance", [key, *keys], [receipt, *arguments]) }
      settled if %w[DONE GONE].include?(reply[0])
      config.logger.debug { "A job had left flight: sent twice, or recovered elsewhere" } if reply[0] == "GONE"
      reply
    end

    # From flight to `retry` or `dead`, and the barriers above the job, and the
    # memory of its run, live on for as long as it may be tried again.
    def fail(set, score, payload)
      now = Time.now.to_f
      dead_for = config[:dead_timeout_in_seconds]
      needed, ttl = SidekiqFlow::Companion.needs(SidekiqFlow::Companion.parse(payload) || {})
      ttl += ((set == "dead") ? dead_for : score.to_f - now).to_i
      keys = [key, set, *needed]
      arguments = [receipt, set, score, payload, (now - dead_for).to_s, config[:dead_max_jobs], ttl]
      reply = SidekiqFlow::Companion.patiently(config.logger) do
        config.redis { |conn| Scripts.run(conn, "fail", keys, arguments) }
      end
      raise WrongType, "The Redis key #{reply[1].inspect} is not a sorted set. Remove it." if reply[0] == "TYPE"

      settled
    rescue Refused => error
      leave(error)
    end

    # Dead at once, whatever `retry` says; +tell+ the death handlers.
    def bury(error, tell: true)
      job = SidekiqFlow::Companion.parse(self.job)
      config.logger.error("Job #{job && job["jid"]} of queue #{queue_name} cannot go on, and goes to 'dead': #{error.message}")
      self.fail("dead", Time.now.to_f.to_s, SidekiqFlow::Companion.corpse(self.job, error, queue_name))
      SidekiqFlow::Companion.bury_with_handlers(config, job, error) if tell && job && !error.is_a?(InvalidPayload)
    end

    private

    def worker
      @fetcher.worker
    end

    def settle
      return if @settled

      SidekiqFlow::Companion.patiently(config.logger) { config.redis { |conn| yield conn } }
      settled
    rescue Refused => error
      leave(error)
    end

    # Redis can take the job nowhere. In flight it is not lost: it goes back to its
    # queue when this process ends.
    def leave(error)
      config.logger.error("Job of queue #{queue_name} with receipt #{receipt} stays in #{key}: #{error.message}")
      @settled = true
      worker.leave_in_flight(self)
    end

    def settled
      @settled = true
      worker.release(self)
    end
  end
end
