# frozen_string_literal: true

module Sidekiq
  module Workflow
    # What the job running on this thread belongs to. Set by the middleware
    # around +perform+, for typed jobs (memory) and for extend_ttl!.
    class Runtime
      KEY = :sidekiq_workflow_runtime
      private_constant :KEY

      attr_reader :run_id, :config, :callbacks

      def initialize(run_id:, config:, callbacks:)
        @run_id = run_id
        @config = config
        @callbacks = callbacks
      end

      def extend_ttl!(ttl)
        @callbacks.each do |barrier_id, _, _|
          Sidekiq::Workflow::Workflow.barrier(barrier_id, config: @config).extend_ttl!(ttl)
        end
      end

      class << self
        def current
          Thread.current[KEY]
        end

        def current!
          current || raise("no job of a workflow runs on this thread")
        end

        # Puts back what was there: in Sidekiq::Testing.inline! a job that
        # pushes a job runs it within itself.
        def with(runtime)
          before = Thread.current[KEY]
          Thread.current[KEY] = runtime
          yield
        ensure
          Thread.current[KEY] = before
        end
      end
    end
  end
end
