# frozen_string_literal: true

module SidekiqFlow::Companion
  # The outermost server middleware: settles the job (done, to be retried, dead) in
  # one step. Sidekiq's own signal for a settled job is the exception Handled.
  #
  # It acts after all other middleware has ended: the next steps must not start
  # before, say, a middleware that wraps the job in a transaction has committed.
  class Outcome
    include Sidekiq::ServerMiddleware

    def call(job_instance, job, queue)
      unit = Unit.take
      halted = CancelledRuns.current.halts(job, config)
      # Sidekiq takes it out of flight.
      return if halted == "cancelled"
      return unit.park(job) if halted && unit

      Unit.with(unit) do
        return yield if unit.nil?

        unit.retrier.local(job_instance, unit.job, queue) do
          refusing(unit) do
            Execution.of(job) do |execution|
              check_continuations(job)
              yield.tap { finish(unit, execution) }
            end
          end
        end
      end
    end

    private

    # Refuses a tree that cannot be started before the job runs.
    def check_continuations(job)
      Callback.stack(job).each { |callback| Tree.check(callback.remaining) unless callback.read_later? }
    end

    def finish(unit, execution)
      return unit.completion.advance if unit.completion
      raise execution.refusal if execution.refusal
      return if execution.pushed_again? || !Run.step?(execution.job)

      raise StepSkipped, "A middleware did not let the step run, so its run waits for it. " \
        "Find out which one, then retry the step."
    end

    # Any other error follows Sidekiq's rules for retries.
    def refusing(unit)
      yield
    rescue Refused => error
      unit.bury(error)
      raise Sidekiq::JobRetry::Handled
    end
  end
end
