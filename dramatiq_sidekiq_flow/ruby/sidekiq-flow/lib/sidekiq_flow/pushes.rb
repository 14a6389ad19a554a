# frozen_string_literal: true

module SidekiqFlow::Companion
  # Client middleware. A step that is pushed again while it runs (ActiveJob's
  # retry_on is that, and an interrupted iteration) stays the step that it is. And
  # the barriers above whatever is pushed live until it is through its retries: the
  # gem makes them for a day, and a first step may be delayed for longer.
  class Pushes
    include Sidekiq::ClientMiddleware

    PLANNING = :flow_planning
    PROLONGED = :flow_prolonged

    # The pushes of a plan: its jobs are new, and its script makes the barriers.
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

    # The children of a group have the same barriers: once is enough.
    def prolong(job, redis_pool)
      stack = job[SidekiqFlow::Companion.dialect.callbacks]
      return unless stack.is_a?(Array) && stack.any? && stack.all? { |entry| entry.is_a?(Array) && (entry[1].nil? || entry[1].is_a?(Hash)) }

      callbacks = stack.map { |entry| Callback.new(*entry.first(3)) }
      wait = job["at"].is_a?(Numeric) ? [0, job["at"] - Time.now.to_f].max.ceil : 0
      ttl = [Plan.barrier_ttl(nil, callbacks) + wait, MAX_TTL].min
      top, done = Thread.current[PROLONGED]
      return if top == callbacks.last.barrier && done >= ttl

      redis_pool.with { |conn| Scripts.run(conn, "extend", ["", *callbacks.flat_map(&:keys)], [ttl, 0]) }
      Thread.current[PROLONGED] = [callbacks.last.barrier, ttl]
    rescue => error
      # The push matters more: who pushes may have taken the job out of a set.
      Sidekiq.logger.warn("The barriers of job #{job["jid"]} could not be prolonged: #{error.class}: #{error.message}")
    end
  end
end
