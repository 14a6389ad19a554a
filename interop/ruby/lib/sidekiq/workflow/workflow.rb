# frozen_string_literal: true

require "securerandom"

module Sidekiq
  module Workflow
    # Turns a node and the callbacks above it into barriers and pushed jobs.
    #
    # +callbacks+ is a stack of [barrier id, remaining workflow, propagate],
    # its last element the innermost. It travels in each job's payload.
    class Workflow
      def self.barrier(id, config:)
        settings = Sidekiq::Workflow.configuration
        settings.barrier_class.new(id, ttl: settings.barrier_ttl, config: config)
      end

      def initialize(workflow, run_id: nil, callbacks: [], delay: 0, config: Sidekiq.default_configuration)
        @workflow = Node.check!(workflow)
        @run_id = run_id
        @callbacks = callbacks
        @delay = delay
        @config = config
      end

      def run(run_id = nil)
        @run_id = run_id || @run_id || SecureRandom.uuid
        start(@workflow, @callbacks, @delay)
        @run_id
      end

      # One thing below this stack has completed: goes up from barrier to
      # barrier until one holds, and starts what waited behind a released one.
      def complete(callbacks = @callbacks)
        stack = callbacks.dup
        until stack.empty?
          barrier_id, remaining, propagate = stack.pop
          return unless barrier(barrier_id).wait

          start(Serialize.unserialize_workflow(remaining), stack, 0) if remaining
          return unless propagate
        end
      end

      private

      def barrier(id)
        self.class.barrier(id, config: @config)
      end

      def start(node, callbacks, delay)
        case node
        when Job then push(node, callbacks, delay)
        when WithDelay then start(node.task, callbacks, delay + node.delay)
        when Chain then start_chain(node, callbacks, delay)
        when Group then start_group(node, callbacks, delay)
        end
      end

      # The last task of a chain needs no barrier: the callbacks above it are
      # its own.
      def start_chain(chain, callbacks, delay)
        first, *rest = chain.children
        return start_empty(callbacks, delay) if first.nil?

        start(first, rest.empty? ? callbacks : [*callbacks, callback(1, Chain.new(*rest), false)], delay)
      end

      def start_group(group, callbacks, delay)
        return start_empty(callbacks, delay) if group.children.empty?

        inner = [*callbacks, callback(group.children.size, nil, true)]
        group.children.each { |child| start(child, inner, delay) }
      end

      # Nothing to wait for, unless a delay: a job that does nothing takes it.
      def start_empty(callbacks, delay)
        delay > 0 ? start(Job.new(NoopWorker), callbacks, delay) : complete(callbacks)
      end

      def callback(parties, remaining, propagate)
        id = SecureRandom.uuid
        barrier(id).create(parties)
        [id, remaining && Serialize.serialize_workflow(remaining), propagate]
      end

      def push(job, callbacks, delay)
        item = {"class" => job.job_class, "args" => job.args}.merge(job.options)
        item["workflow_run_id"] = @run_id
        unless callbacks.empty?
          item["workflow_completion_callbacks"] = Sidekiq::Workflow.configuration.callback_storage.store(callbacks)
        end
        item["at"] = Time.now.to_f + delay / 1000.0 if delay > 0
        Sidekiq::Client.new(config: @config).push(item)
      end
    end
  end
end
