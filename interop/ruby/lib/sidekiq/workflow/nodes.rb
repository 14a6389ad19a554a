# frozen_string_literal: true

module Sidekiq
  module Workflow
    # What a workflow is made of. The nodes only hold; Workflow runs them.
    module Node
      def self.check!(value)
        return value if value.is_a?(Node)
        raise ArgumentError, "not a part of a workflow: #{value.inspect}"
      end
    end

    class Job
      include Node
      attr_reader :job_class, :args, :options

      # +options+ are Sidekiq's own (queue, retry, tags ...). What is not said
      # here comes from the class's sidekiq_options when the job is pushed.
      def initialize(job_class, *args, **options)
        @job_class = job_class
        @args = args
        @options = options.transform_keys(&:to_s)
      end
    end

    class Chain
      include Node
      attr_reader :children

      def initialize(*children)
        @children = children.each { |child| Node.check!(child) }
      end
    end

    class Group
      include Node
      attr_reader :children

      def initialize(*children)
        @children = children.each { |child| Node.check!(child) }
      end
    end

    class WithDelay
      include Node
      attr_reader :task, :delay

      # +delay+ is in milliseconds.
      def initialize(task, delay:)
        @task = Node.check!(task)
        @delay = delay
      end
    end
  end
end
