# frozen_string_literal: true

module SidekiqFlow::Companion
  # The death handlers of the application, and the companion's own.
  module DeathHandlers
    module_function

    # Calls all of them, as Sidekiq does for a job that its own rules bury.
    def call(config, job, error)
      config[:death_handlers].each do |handler|
        handler.call(job, error)
      rescue => handler_error
        config.handle_exception(handler_error, {context: "Error calling death handler", job: job})
      end
    end

    # Logs the death of a step.
    def log(config, job, error)
      return unless Run.step?(job)

      name = (job["display_class"] || job["class"]).to_s[0, 255]
      config.logger.error("Job #{job["jid"]} (#{name}) of run #{Run.label(job)} is dead: #{error.class}. " \
        "The run waits; retrying the job resumes it.")
    end
  end
end
