# frozen_string_literal: true

module SidekiqFlow::Companion
  # Takes the place of the gem's middleware: keeps what the job returned, and plans
  # the next steps. It runs inside the application's own middleware, so a step is
  # pushed for the tenant, and in the locale, of the step before.
  #
  # One exception: when the last two jobs of a group end at the same time, neither
  # can know that it is the last. The next steps are then planned after the
  # middleware has ended, and get the context that the payload carries (Inherited).
  class Output
    include Sidekiq::ServerMiddleware

    def call(job_instance, job, queue)
      refuse_carrier(job, queue)
      refuse_other_dialect(job)
      dialect = Dialect.current
      return yield unless dialect.of?(job)

      Execution.of(job) do |execution|
        result = in_context_of_gem(job_instance, job, queue) { yield }
        complete(execution, queue, result) unless execution.pushed_again? || execution.refusal
        result
      end
    end

    private

    def complete(execution, queue, result)
      unit = Unit.current
      job = execution.job
      completion = StepReplacement.of(execution, unit || BorrowedUnit.new(config, queue, job), fields(job, result))
      completion.prepare
      unit ? unit.completion = completion : completion.advance
    end

    # Python's steps whose name is not a Ruby constant travel as the gem's no-op,
    # which would skip their work.
    def refuse_carrier(job, queue)
      return unless DIALECTS.any? { |dialect| dialect.noop_class == job["class"] } && job["wrapped"]

      raise SidekiqFlow::WrongQueue.for(job, queue)
    end

    def refuse_other_dialect(job)
      dialect = Dialect.current
      other = Dialect.other
      return unless other.of?(job) && !dialect.of?(job)

      raise OtherDialect, "The job is a step of the gem sidekiq-#{other.name} (#{other.run_id}), and this process " \
        "has sidekiq-#{dialect.name}: its run would stop here. Use the same gem in all Ruby processes, and in " \
        "Python WorkflowMiddleware(dialect=#{dialect.name.inspect}); until then, retry the job where its own " \
        "gem is."
    end

    # Runs the job inside the gem's own middleware, for typed jobs and extend_ttl!,
    # and leaves it by a throw before it would advance the run.
    def in_context_of_gem(job_instance, job, queue)
      middleware = Dialect.current.gem::Middleware.new
      middleware.config = config
      done = Object.new
      catch(done) { middleware.call(job_instance, job, queue) { throw done, yield } }
    end

    # [name, JSON, ...]. An error here is still a failure of the job.
    def fields(job, result)
      result = result.to_h if result.is_a?(Dialect.current.gem::Schema)
      return [] unless result.is_a?(Hash) && Memory.current && !Run.id(job).to_s.empty?

      namespace = job["memory_namespace"]
      prefix = (namespace.is_a?(String) && !namespace.empty?) ? "#{namespace}." : ""
      result.flat_map { |name, value| ["#{prefix}#{name}", Sidekiq.dump_json(value)] }
    end
  end
end
