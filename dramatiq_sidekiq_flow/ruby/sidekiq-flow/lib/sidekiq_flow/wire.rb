# frozen_string_literal: true

module SidekiqFlow::Companion
  # The gem's nodes in wire form, and back.
  module Wire
    class << self
      # A node of the gem in wire form: a copy, apart from the arguments and options of its
      # jobs.
      def of(node)
        copy(serializer.serialize_workflow(node))
      rescue TypeError, ArgumentError, NoMethodError => error
        raise InvalidWorkflow, "A workflow is made of #{Dialect.current.gem}::Job, Chain, Group and WithDelay, " \
          "not of #{node.inspect[0, 100]}: #{error.message[0, 200]}"
      end

      # The node of the gem.
      def node(wire)
        serializer.unserialize_workflow(wire)
      end

      # As another process reads it.
      def read(wire)
        JSON.parse(Sidekiq.dump_json(wire))
      rescue JSON::JSONError, EncodingError => error
        raise InvalidNode, "The workflow cannot be written as JSON: #{error.message[0, 200]}"
      end

      # A copy of a tree in wire form whose jobs name their queue, where their class knows it.
      def with_queues(wire)
        copy(wire).tap do |tree|
          Tree.jobs(tree) { |job| job["queue"] ||= queue_of(job["class"]) }
        end
      end

      private

      def serializer
        Dialect.current.gem::Serialize
      end

      def queue_of(name)
        Plan.class_of(name)&.get_sidekiq_options&.fetch("queue", nil)&.to_s
      end

      # The copy is changed: its jobs get numbers.
      def copy(wire)
        case wire["__type__"]
        when "job" then copy_of_job(wire)
        when "with_delay" then wire.merge("task" => copy(wire["task"]))
        else wire.merge("children" => wire["children"].map { |child| copy(child) })
        end
      end

      def copy_of_job(job)
        fallback = job[Replacement::POLICY]
        fallback.is_a?(Hash) ? job.merge(Replacement::POLICY => copy(fallback)) : job.dup
      end
    end
  end
end
