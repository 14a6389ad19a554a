# frozen_string_literal: true

module SidekiqFlow::Companion
  # The outermost server middleware: decides what becomes of the job, and does
  # it, in one step. Handled is Sidekiq's own word for "that is settled".
  #
  # It comes last, after every other middleware has ended: what follows must not
  # start before, say, one that wraps the job in a transaction has committed.
  class Outcome
    include Sidekiq::ServerMiddleware

    def call(job_instance, job, queue)
      unit = Unit.take
      Unit.with(unit) do
        return yield if unit.nil?

        unit.retrier.local(job_instance, unit.job, queue) do
          refusing(unit) do
            Execution.of(job) do |execution|
              Callback.stack(job).each { |callback| Plan.check(callback.remaining) if callback.remaining }
              yield.tap { finish(unit, execution) }
            end
          end
        end
      end
    end

    private

    def finish(unit, execution)
      return unit.completion.advance if unit.completion
      raise execution.refusal if execution.refusal
      return if execution.pushed_again? || SidekiqFlow::Companion.run_id(execution.job).nil?

      raise StepSkipped, "A middleware did not let the step run, so its run waits for it. Look for which one, then retry it."
    end

    # Whatever else is raised is tried again, by Sidekiq's rules.
    def refusing(unit)
      yield
    rescue Refused => error
      unit.bury(error)
      raise Sidekiq::JobRetry::Handled
    end
  end
end
