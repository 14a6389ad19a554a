# frozen_string_literal: true

require "securerandom"

module Sidekiq
  module Workflow
    # Workflows by name. The parameters, checked and with their defaults, are
    # in the run's memory before its first job is pushed: typed jobs find them.
    module Templates
      Template = Struct.new(:input, :block)
      @templates = {}

      module_function

      def register(name, input: nil, &block)
        raise ArgumentError, "a template needs a block" if block.nil?

        @templates[name.to_s] = Template.new(input, block)
      end

      def run(name, params = {}, config: Sidekiq.default_configuration)
        template = @templates.fetch(name.to_s) { raise ArgumentError, "no template #{name.inspect}" }
        input = template.input ? template.input.new(params) : params
        workflow = template.block.call(input)
        run_id = SecureRandom.uuid
        Sidekiq::Workflow.configuration.memory&.write(run_id, input.to_h, config: config)
        Workflow.new(workflow, run_id: run_id, config: config).run
      end

      def clear!
        @templates.clear
      end
    end
  end
end
