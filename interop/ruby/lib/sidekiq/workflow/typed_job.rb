# frozen_string_literal: true

module Sidekiq
  module Workflow
    # Gives +perform+ an Input made of the run's memory and of the job's hash
    # (which wins), and checks what it returns against Output. Either may be
    # missing in the class; then that side is left alone.
    module TypedJob
      def self.included(job_class)
        job_class.prepend(Perform)
      end

      module Perform
        def perform(*args)
          input_schema = TypedJob.schema(self.class, :Input)
          result = input_schema ? super(TypedJob.input(input_schema, args)) : super
          TypedJob.output(TypedJob.schema(self.class, :Output), result)
        end
      end

      module_function

      # Not const_get alone: it would find a top-level Input of somebody else.
      def schema(job_class, name)
        owner = job_class.ancestors.take_while { |mod| mod != Object }.find { |mod| mod.const_defined?(name, false) }
        owner&.const_get(name, false)
      end

      def input(schema, args)
        raise ArgumentError, "a typed job takes one hash, got #{args.inspect}" unless args.empty? || (args.size == 1 && args[0].is_a?(Hash))

        given = (args[0] || {}).transform_keys(&:to_s)
        schema.new(remembered(schema).merge(given))
      end

      def remembered(schema)
        memory = Sidekiq::Workflow.configuration.memory
        runtime = Runtime.current
        return {} if memory.nil? || runtime.nil? || runtime.run_id.nil?

        memory.read(runtime.run_id, keys: schema.fields.keys, config: runtime.config)
      end

      def output(schema, result)
        return result if schema.nil? || result.is_a?(schema)
        raise Schema::ValidationError, "#{schema}: the job returned #{result.inspect}" unless result.is_a?(Hash)

        schema.new(result)
      end
    end
  end
end
