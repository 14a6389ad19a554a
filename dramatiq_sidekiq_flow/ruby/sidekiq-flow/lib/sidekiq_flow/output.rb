# frozen_string_literal: true

module SidekiqFlow::Companion
  # Stands where the gem's middleware stood. It keeps what the job returned, and
  # works out what follows: inside of the application's own middleware, so that a
  # step is pushed for the tenant, and in the locale, of the one before.
  #
  # One case is left. When the last two jobs of a group end at the same time, none
  # of them can know that it is the last. What follows is then worked out after
  # the middleware has ended, and has of the context what the payload carries
  # (INHERITED).
  class Output
    include Sidekiq::ServerMiddleware

    def call(job_instance, job, queue)
      refuse_carrier(job, queue)
      refuse_other_dialect(job)
      dialect = SidekiqFlow::Companion.dialect
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
      completion = Completion.new(unit || BorrowedUnit.new(config, queue, execution.job), execution.job, fields(execution.job, result))
      completion.prepare
      unit ? unit.completion = completion : completion.advance
    end

    # Python's steps without a name that Ruby can have travel as the gem's no-op,
    # which would pass them without their work.
    def refuse_carrier(job, queue)
      return unless DIALECTS.any? { |dialect| dialect.noop_class == job["class"] } && job["wrapped"]

      raise SidekiqFlow::WrongQueue.for(job, queue)
    end

    def refuse_other_dialect(job)
      dialect, other = SidekiqFlow::Companion.dialect, SidekiqFlow::Companion.other_dialect
      return unless other.of?(job) && !dialect.of?(job)

      raise OtherDialect, "The job is a step of the gem sidekiq-#{other.name} (#{other.run_id}), and this process has sidekiq-#{dialect.name}: " \
        "its run would stop here. Use the same gem in all Ruby processes, and in Python WorkflowMiddleware(dialect=#{dialect.name.inspect}); " \
        "until then, retry the job where its own gem is."
    end

    # The gem's own middleware, left as soon as the job is done: typed jobs and
    # extend_ttl! find what they need, and it does not come to advancing.
    def in_context_of_gem(job_instance, job, queue)
      middleware = SidekiqFlow::Companion.gem::Middleware.new
      middleware.config = config
      done = Object.new
      catch(done) { middleware.call(job_instance, job, queue) { throw done, yield } }
    end

    # [name, JSON, ...]; raises here, where it is still the job's own failure.
    def fields(job, result)
      result = result.to_h if result.is_a?(SidekiqFlow::Companion.gem::Schema)
      return [] unless result.is_a?(Hash) && SidekiqFlow::Companion.memory && !SidekiqFlow::Companion.run_id(job).to_s.empty?

      namespace = job["memory_namespace"]
      prefix = (namespace.is_a?(String) && !namespace.empty?) ? "#{namespace}." : ""
      result.flat_map { |name, value| ["#{prefix}#{name}", Sidekiq.dump_json(value)] }
    end
  end
end
