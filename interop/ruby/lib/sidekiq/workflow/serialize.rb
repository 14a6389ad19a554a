# frozen_string_literal: true

module Sidekiq
  module Workflow
    # The nodes as they stand in a payload, and back.
    module Serialize
      # A job's other keys are its options.
      NOT_OPTIONS = %w[class args __type__].freeze

      module_function

      def serialize_workflow(node)
        case node
        when Job
          {"class" => node.job_class.to_s, "args" => node.args}.merge(node.options, "__type__" => "job")
        when Chain
          {"__type__" => "chain", "children" => node.children.map { |child| serialize_workflow(child) }}
        when Group
          {"__type__" => "group", "children" => node.children.map { |child| serialize_workflow(child) }}
        when WithDelay
          {"__type__" => "with_delay", "delay" => node.delay, "task" => serialize_workflow(node.task)}
        else
          Node.check!(node)
        end
      end

      # Raises NameError for a class that this process does not know, as the
      # gem does: the barrier is released by then, and the run stops for good.
      def unserialize_workflow(tree)
        case tree.fetch("__type__")
        when "job"
          options = tree.reject { |key, _| NOT_OPTIONS.include?(key) }
          Job.new(Object.const_get(tree.fetch("class")), *tree.fetch("args"), **options.transform_keys(&:to_sym))
        when "chain"
          Chain.new(*tree.fetch("children").map { |child| unserialize_workflow(child) })
        when "group"
          Group.new(*tree.fetch("children").map { |child| unserialize_workflow(child) })
        when "with_delay"
          WithDelay.new(unserialize_workflow(tree.fetch("task")), delay: tree.fetch("delay"))
        else
          raise ArgumentError, "unknown part of a workflow: #{tree.fetch("__type__").inspect}"
        end
      end
    end
  end
end
