# frozen_string_literal: true

module SidekiqFlow::Companion
  # Sidekiq's own rules for what becomes of a job that failed. Only the writing
  # is another's: one script in place of ZADD and a later acknowledge.
  #
  # A step of a run is never dropped: what `retry: false`, `dead: false` or a
  # `:discard` of the application would throw away goes to `dead`, for its run
  # waits for it.
  class Retry < Sidekiq::JobRetry
    # The failure of a job that did not come to its middleware: a class that does
    # not exist, the Rails reloader.
    def global(payload, queue)
      super
    rescue Sidekiq::JobRetry::Handled => handled
      unit = Unit.fetched
      unit.bury(handled.cause, tell: false) if unit && handled.cause && !unit.settled? && step?(payload)
      raise
    end

    # What Sidekiq raises again is a job without retries, or one whose failure it
    # could not write down.
    def local(job_instance, payload, queue)
      super
    rescue Sidekiq::JobRetry::Handled, Sidekiq::Shutdown
      raise
    rescue Exception => error # as Sidekiq has it
      unit = Unit.current
      raise if unit.nil? || unit.settled? || !step?(payload)

      unit.bury(error)
      raise Sidekiq::JobRetry::Handled
    end

    private

    def process_retry(job_instance, job, queue, error)
      begin
        super
      rescue Sidekiq::JobRetry::Handled, Sidekiq::Shutdown
        raise
      rescue => broken
        raise if unit.nil?

        logger.error("The failure of job #{job["jid"]} cannot be noted as Sidekiq does: #{broken.class}: #{broken.message}")
        return unit.bury(error)
      end
      return if unit.nil? || unit.settled? || SidekiqFlow::Companion.run_id(job).nil?

      logger.error("Job #{job["jid"]} of run #{SidekiqFlow::Companion.run_id(job).to_s[0, 255]} failed for good and was to be dropped; it is a step, " \
        "and goes to 'dead': #{error.class}")
      unit.fail("dead", Time.now.to_f.to_s, Sidekiq.dump_json(job))
    end

    def step?(payload)
      job = SidekiqFlow::Companion.parse(payload)
      job && !SidekiqFlow::Companion.run_id(job).nil?
    end

    def unit
      Unit.current || Unit.fetched
    end

    def redis(&block)
      unit ? yield(FailureWriter.new(unit, config)) : super
    end
  end
end
