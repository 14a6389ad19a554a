# frozen_string_literal: true

module Sidekiq
  module Workflow
    # Server middleware: after a job has succeeded, keeps what it returned and
    # advances its workflow. A job that raises does neither; Sidekiq retries it
    # with the same payload, callbacks and all.
    class Middleware
      include Sidekiq::ServerMiddleware

      def call(_job_instance, job, _queue)
        run_id = job["workflow_run_id"]
        stored = job["workflow_completion_callbacks"]
        return yield if run_id.nil? && stored.nil?

        callbacks = stored.nil? ? [] : Sidekiq::Workflow.configuration.callback_storage.retrieve(stored)
        runtime = Runtime.new(run_id: run_id, config: config, callbacks: callbacks)
        result = Runtime.with(runtime) { yield }
        remember(run_id, result)
        Workflow.new(Chain.new, run_id: run_id, callbacks: callbacks, config: config).complete
        result
      end

      private

      def remember(run_id, result)
        memory = Sidekiq::Workflow.configuration.memory
        return if memory.nil? || run_id.nil?

        values = result.is_a?(Schema) ? result.to_h : result
        memory.write(run_id, values, config: config) if values.is_a?(Hash)
      end
    end
  end
end
