# frozen_string_literal: true

module SidekiqFlow::Companion
  # A job in flight; what Sidekiq calls a unit of work. It leaves flight once: by an
  # advance, a failure, a requeue or, if none of them came first, by Sidekiq's
  # acknowledge.
  class Unit
    FETCHED = :flow_fetched
    CURRENT = :flow_current

    class << self
      # The unit that the fetcher gave to this thread, until its middleware takes it.
      def fetched=(unit)
        Thread.current[FETCHED] = unit
      end

      def fetched
        Thread.current[FETCHED]
      end

      def take
        Thread.current[FETCHED].tap { Thread.current[FETCHED] = nil }
      end

      # The unit whose middleware runs on this thread; nil for a job that runs inline
      # in another one.
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
      @job = Payload.unwrapped(payload)
      @thread = Thread.current
      @settled = false
      worker.hold(self)
    end

    def queue
      "queue:#{queue_name}"
    end

    def key
      Member.in_flight(@member)
    end

    def config
      @fetcher.config
    end

    def retrier
      @fetcher.retrier
    end

    # Called by Sidekiq at the end of each job, however it ended. Most have left
    # flight by then.
    #
    # The others: plain jobs that are done, jobs that are discarded, and steps that
    # were pushed again. Such a step is in its queue before it leaves flight: a crash
    # in between runs it twice, under the same jid, which a barrier counts once.
    def acknowledge
      settle { |conn| conn.call("HDEL", key, receipt) }
    end

    # Puts the job back to the end of the queue that is taken from next.
    def requeue
      settle { |conn| Scripts.run(conn, "requeue", [key, queue], [receipt]) }
    end

    # The same, without waiting for a server that is unavailable.
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

    # Runs advance.lua. Returns its outcome (see Replies.advance).
    def advance(keys, arguments)
      ended(Replies.advance(run("advance", keys, arguments)))
    end

    # Runs replace.lua. Returns its outcome (see Replies.replace).
    def replace_step(keys, arguments)
      ended(Replies.replace(run("replace", keys, arguments)))
    end

    # Parks the job, which has not run, since its run is paused. The keys that its run
    # needs live on for as long as it may wait.
    def park(job)
      needed, ttl = Lifetimes.needs(job)
      ttl += config[:dead_timeout_in_seconds].to_i
      keys = [key, "swf:flow:#{Run.id(job)}", queue, *needed]
      settle { |conn| Replies.park(Scripts.run(conn, "park", keys, [receipt, queue_name, ttl])) }
    end

    # Moves the job from flight to `retry` or `dead`. The barriers above it, and the
    # memory of its run, live on for as long as it may be tried again.
    def fail(set, score, payload)
      job = Payload.parse(payload) || {}
      replacement = Replacement.of(job, self) if set == "dead"
      return replace(score, job, replacement) if replacement

      now = Time.now.to_f
      dead_for = config[:dead_timeout_in_seconds]
      needed, ttl = Lifetimes.needs(job)
      ttl += ((set == "dead") ? dead_for : score.to_f - now).to_i
      step = StepRecord.new(job)
      keys = [key, set, step.key, *needed]
      arguments = [receipt, set, score, payload, (now - dead_for).to_s, config[:dead_max_jobs], ttl,
        *((set == "dead") ? [step.number, step.failure(now)] : ["", ""])]
      reply = Trouble.patiently(config.logger) { config.redis { |conn| Scripts.run(conn, "fail", keys, arguments) } }
      Replies.fail(reply)
      settled
    rescue Refused => error
      leave(error)
    end

    # Moves the job to `dead` at once, whatever its `retry` is; +tell+ calls the
    # death handlers.
    def bury(error, tell: true)
      job = Payload.parse(self.job)
      config.logger.error("Job #{job && job["jid"]} of queue #{queue_name} cannot continue, and goes to 'dead': " \
        "#{error.message}")
      self.fail("dead", Time.now.to_f.to_s, Payload.dead(self.job, error, queue_name))
      DeathHandlers.call(config, job, error) if tell && job && !error.is_a?(InvalidPayload)
    end

    private

    # Moves a step to `dead`, and pushes what takes its place, in one step.
    def replace(score, job, replacement)
      step = StepRecord.new(job)
      needed, = Lifetimes.needs(job)
      now = Time.now.to_f
      first = [receipt, "dead", score, replacement.payload, (now - config[:dead_timeout_in_seconds]).to_s,
        config[:dead_max_jobs], replacement.ttl, step.number, step.failure(now)]
      reply = :stage_lost
      while reply == :stage_lost
        keys, last = Trouble.patiently(config.logger) { replacement.writes(needed.size) }
        keys = [key, "dead", step.key, *needed, *keys]
        reply = Replies.fail(Trouble.patiently(config.logger) do
          config.redis { |conn| Scripts.run(conn, "fail", keys, [*first, *last]) }
        end)
      end
      settled
      replacement.pour
    rescue Refused => error
      leave(error)
    end

    def worker
      @fetcher.worker
    end

    def run(script, keys, arguments)
      config.redis { |conn| Scripts.run(conn, script, [key, *keys], [receipt, *arguments]) }
    end

    def ended(outcome)
      settled if %i[done gone cancelled].include?(outcome)
      config.logger.debug { "The job had left flight: it was sent twice, or recovered elsewhere" } if outcome == :gone
      outcome
    end

    def settle
      return if @settled

      Trouble.patiently(config.logger) { config.redis { |conn| yield conn } }
      settled
    rescue Refused => error
      leave(error)
    end

    # Leaves a job in flight that Redis can store nowhere else. It is not lost: it
    # goes back to its queue when this process ends.
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
