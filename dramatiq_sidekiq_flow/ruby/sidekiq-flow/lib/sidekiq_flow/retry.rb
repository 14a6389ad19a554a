# frozen_string_literal: true

module SidekiqFlow::Companion
  # Applies Sidekiq's own rules for failed jobs. Only the write differs: one script
  # instead of ZADD and a later acknowledge.
  #
  # A step is never dropped: with `retry: false`, `dead: false` or `:discard` it
  # goes to `dead`, since its run waits for it.
  class Retry < Sidekiq::JobRetry
    # The failure of a job before its middleware: its class does not exist, or the
    # Rails reloader failed.
    def global(payload, queue)
      super
    rescue Sidekiq::JobRetry::Handled => handled
      unit = Unit.fetched
      unit.bury(handled.cause, tell: false) if unit && handled.cause && !unit.settled? && step?(payload)
      raise
    end

    # Sidekiq raises the error again for a job without retries, and for a failure
    # that it could not record.
    def local(job_instance, payload, queue)
      super
    rescue Sidekiq::JobRetry::Handled, Sidekiq::Shutdown
      raise
    rescue Exception => error # as Sidekiq does
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

        logger.error("Sidekiq could not record the failure of job #{job["jid"]}, and the job goes to 'dead': " \
          "#{broken.class}: #{broken.message}")
        return unit.bury(error)
      end
      keep_step(job, error) unless unit.nil? || unit.settled? || !Run.step?(job)
    end

    def keep_step(job, error)
      logger.error("Job #{job["jid"]} of run #{Run.label(job)} failed for good. It would be dropped, but it is a " \
        "step: it goes to 'dead': #{error.class}")
      unit.fail("dead", Time.now.to_f.to_s, Sidekiq.dump_json(job))
    end

    def step?(payload)
      job = Payload.parse(payload)
      job && Run.step?(job)
    end

    def unit
      Unit.current || Unit.fetched
    end

    def redis(&block)
      unit ? yield(FailureWriter.new(unit, config)) : super
    end
  end
end
