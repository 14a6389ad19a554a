# frozen_string_literal: true

module SidekiqFlow::Companion
  # What ActiveJob does about an error (retry_on, discard_on) looks to Sidekiq like
  # a job that is done. It tells its subscribers.
  module ActiveJobEvents
    EVENTS = /\A(enqueue_retry|retry_stopped|discard|perform)\.active_job\z/

    module_function

    def subscribe
      return if @subscribed || !defined?(ActiveSupport::Notifications)

      @subscribed = true
      ActiveSupport::Notifications.subscribe(EVENTS) { |name, _, _, _, payload| seen(name.delete_suffix(".active_job"), payload) }
    end

    def seen(event, payload)
      execution = Execution.current
      # Another job may be performed inline.
      return unless execution && payload[:job]&.job_id == execution.active_job_id

      case event
      when "enqueue_retry" then execution.pushed_again!
      when "perform"
        execution.refusal ||= StepSkipped.new("A callback of ActiveJob aborted the step, so its run waits for it. Retry it.") if payload[:aborted]
      else
        execution.refusal = StepDiscarded.new("ActiveJob gave the step up (#{event}) after #{payload[:error].class}: " \
          "#{payload[:error]&.message}. Its run waits for it. Retry it when that is mended.")
      end
    end
  end
end
