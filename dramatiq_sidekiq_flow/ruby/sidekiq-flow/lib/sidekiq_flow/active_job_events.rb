# frozen_string_literal: true

module SidekiqFlow::Companion
  # Listens to ActiveJob: a job that ActiveJob retries or discards (retry_on,
  # discard_on) has succeeded as far as Sidekiq can see.
  module ActiveJobEvents
    EVENTS = /\A(enqueue_retry|retry_stopped|discard|perform)\.active_job\z/

    module_function

    def subscribe
      return if @subscribed || !defined?(ActiveSupport::Notifications)

      @subscribed = true
      ActiveSupport::Notifications.subscribe(EVENTS) do |name, _, _, _, payload|
        seen(name.delete_suffix(".active_job"), payload)
      end
    end

    def seen(event, payload)
      execution = Execution.current
      # It may be the event of another job, which runs inline.
      return unless execution && payload[:job]&.job_id == execution.active_job_id

      case event
      when "enqueue_retry" then execution.pushed_again!
      when "perform"
        execution.refusal ||= aborted if payload[:aborted]
      else
        execution.refusal = discarded(event, payload[:error])
      end
    end

    def aborted
      StepSkipped.new("A callback of ActiveJob aborted the step, so its run waits for it. Retry it.")
    end

    def discarded(event, error)
      StepDiscarded.new("ActiveJob gave the step up (#{event}) after #{error.class}: #{error&.message}. " \
        "Its run waits for it. Retry it when the cause is fixed.")
    end
  end
end
