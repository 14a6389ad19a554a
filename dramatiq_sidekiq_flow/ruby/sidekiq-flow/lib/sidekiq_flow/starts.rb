# frozen_string_literal: true

module SidekiqFlow::Companion
  # The gem's ways to start a run, which write its record, too. A run that cannot get one
  # starts as the gem starts it.
  module Starts
    TEMPLATE = :flow_template

    class << self
      # Prepends to the classes of the gem, if it is loaded.
      def install
        return unless Dialect.loaded?

        gem = Dialect.current.gem
        return unless gem.const_defined?(:Workflow) && gem.const_defined?(:Serialize)

        gem::Workflow.prepend(OfWorkflow)
        gem::Templates.singleton_class.prepend(OfTemplates) if gem.const_defined?(:Templates)
      end

      # Yields, to start a run in the gem's way, unless it was started with a record.
      # +again+: whether a call before this one may have started it.
      def with_record(tree, run_id, config, again:)
        options = RunOptions.new(template: take_template)
        outcome = Start.new(tree, run_id: run_id, options: options, config: config).call
        # The gem starts a run of an id as often as it is told to.
        yield if outcome == :started && !again
      rescue Refused, InvalidWorkflow, RedisClient::CommandError => error
        raise if error.is_a?(PushStopped)

        Sidekiq.logger.warn("The run #{run_id} starts without a record: #{error.class}: #{error.message}")
        yield
      end

      def with_template(name)
        before = Thread.current[TEMPLATE]
        Thread.current[TEMPLATE] = name.to_s
        yield
      ensure
        Thread.current[TEMPLATE] = before
      end

      private

      # Of the first run that it starts.
      def take_template
        Thread.current[TEMPLATE].tap { Thread.current[TEMPLATE] = nil }
      end
    end

    # Workflow#run.
    module OfWorkflow
      def run(*arguments)
        return super if flow_continues? || !Start.possible?

        @run_id = arguments.first || @run_id || SecureRandom.uuid
        tree = flow_tree
        return super if tree.nil?

        config = @config || Sidekiq.default_configuration
        Starts.with_record(tree, @run_id, config, again: @flow_unanswered) do
          @flow_started = true
          return super(*arguments)
        end
        @flow_started = true
        @run_id
      rescue RedisClient::ConnectionError
        @flow_unanswered = true
        raise
      end

      private

      # Whether it is not the start of a run, but a continuation; or the second start.
      def flow_continues?
        @flow_started || !@completion_callbacks.nil? || Array(@callbacks).any?
      end

      # In wire form; nil if it cannot be written.
      def flow_tree
        tree = Wire.of(@workflow)
        @delay.to_f.positive? ? {"__type__" => "with_delay", "delay" => @delay, "task" => tree} : tree
      rescue InvalidWorkflow
        nil
      end
    end

    # Templates.run.
    module OfTemplates
      ruby2_keywords def run(name, *arguments)
        Starts.with_template(name) { super(name, *arguments) }
      end
    end
  end
end
