# frozen_string_literal: true

module SidekiqFlow::Companion
  # Client middleware. A step that is pushed again while it runs (by ActiveJob's
  # retry_on, or an interrupted iteration) stays the same step. And the barriers
  # above a pushed job outlive its retries: the gem creates them for a day, and a
  # first step may be delayed for longer.
  class Pushes
    include Sidekiq::ClientMiddleware

    PLANNING = :flow_planning
    PROLONGED = :flow_prolonged

    # Runs the pushes of a plan: its jobs are new, and its script makes the barriers.
    def self.planned
      before = Thread.current[PLANNING]
      Thread.current[PLANNING] = true
      yield
    ensure
      Thread.current[PLANNING] = before
    end

    def call(_job_class, job, _queue, redis_pool)
      return yield if Thread.current[PLANNING]

      execution = Execution.current
      execution.continue_in(job) if execution&.same?(job)
      prolong(job, redis_pool)
      yield
    end

    private

    # Extends the barriers once for the children of a group, which share them.
    def prolong(job, redis_pool)
      stack = job[Dialect.current.callbacks]
      return unless stack?(stack)

      callbacks = stack.map { |entry| Callback.new(*entry.first(3)) }
      wait = job["at"].is_a?(Numeric) ? [0, job["at"] - Time.now.to_f].max.ceil : 0
      ttl = [Lifetimes.barrier_ttl(nil, callbacks) + wait, Lifetimes::MAX_TTL].min
      top, done = Thread.current[PROLONGED]
      return if top == callbacks.last.barrier && done >= ttl

      redis_pool.with { |conn| Scripts.run(conn, "extend", ["", *callbacks.flat_map(&:keys)], [ttl, 0]) }
      Thread.current[PROLONGED] = [callbacks.last.barrier, ttl]
    rescue => error
      # Pushing goes on: the caller may have removed the job from a set already.
      Sidekiq.logger.warn("The TTLs of the barriers of job #{job["jid"]} could not be extended: " \
        "#{error.class}: #{error.message}")
    end

    def stack?(value)
      return false unless value.is_a?(Array) && value.any?

      value.all? { |entry| entry.is_a?(Array) && (entry[1].nil? || entry[1].is_a?(Hash)) }
    end
  end
end
