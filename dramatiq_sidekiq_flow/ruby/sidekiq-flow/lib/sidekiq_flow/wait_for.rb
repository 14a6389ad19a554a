# frozen_string_literal: true

module SidekiqFlow
  # Steps that wait for a signal, for trees of Ruby (Python's twin is wire/wait_for.py).
  module WaitFor
    # The beginning of the names under which these steps are carried.
    PREFIX = "wait for "

    # The longest name of a signal, in characters.
    MOST = 200

    class << self
      # Returns a name of a signal as text. Raises InvalidWorkflow.
      def name(value)
        text = value.to_s
        return text if text.length.between?(1, MOST) && text.match?(/\A[[:print:]]+\z/)

        raise InvalidWorkflow, "A signal has a name of 1 to #{MOST} printable characters, not #{value.inspect[0, 100]}"
      end

      # Milliseconds of a time limit in seconds, or nil.
      def milliseconds(timeout)
        return if timeout.nil?

        seconds = Companion::Lifetimes.seconds(timeout)
        return (seconds * 1000).round if seconds && (0..Companion::Tree::MAX_DELAY).cover?(seconds * 1000)

        raise InvalidWorkflow, "timeout takes seconds, or a duration such as 3.days, not #{timeout.inspect[0, 100]}"
      end

      # The wire form of a node, or nil.
      def otherwise(node)
        Companion::NewTree.read(node) unless node.nil?
      rescue Companion::InvalidNode => error
        raise InvalidWorkflow, error.message
      end

      # The name of a queue that this process does not consume.
      def queue(name)
        raise InvalidWorkflow, QUEUE_NEEDED unless (name.is_a?(String) || name.is_a?(Symbol)) && !name.empty?

        return name.to_s unless consumed.include?(name.to_s)

        raise InvalidWorkflow, "This Ruby process takes from queue #{name.to_s.inspect}. #{QUEUE_NEEDED}"
      end

      private

      # The queues of this process, if it is a worker.
      def consumed
        return [] unless Sidekiq.server?

        Sidekiq.default_configuration.capsules.each_value.flat_map(&:queues)
      end
    end

    QUEUE_NEEDED = "A step that waits for a signal is run by a Python worker: name a queue that one consumes, " \
      "and that no Ruby process consumes, wait_for(name, queue: \"python\")"
    private_constant :QUEUE_NEEDED
  end

  # A node that is done when its run gets a signal; see SidekiqFlow.signal. A Python worker
  # runs it.
  #
  # name       of the signal. Its data is written to the memory of the run under this name
  # queue      a queue that a Python worker consumes
  # timeout    seconds, or a duration; without one, it waits for half a year, as long as
  #            Sidekiq keeps dead jobs
  # otherwise  a node that runs in its place if the signal has not come in time; an empty
  #            chain just goes on. Without one, the step dies with SignalTimeout
  def self.wait_for(name, queue: nil, timeout: nil, otherwise: nil)
    gem = Companion::Dialect.current.gem
    name = WaitFor.name(name)
    carried = WaitFor::PREFIX + name
    arguments = [name, WaitFor.milliseconds(timeout), WaitFor.otherwise(otherwise)]
    gem.const_get(:Job).new(gem.const_get(:NoopWorker), *arguments,
      queue: WaitFor.queue(queue), retry: true, wrapped: carried, display_class: carried)
  end
end
