# frozen_string_literal: true

module SidekiqFlow::Companion
  # The most entries that a callback stack may have.
  MAX_ENTRIES = 1000

  UUID = /\A\h{8}(-\h{4}){3}-\h{12}\z/

  # One entry of the callback stack: [barrier id, what remains, propagate].
  Callback = Struct.new(:barrier, :remaining, :propagate) do
    # The callback stack of a job, the top last. Trees that another job will start may
    # be references.
    def self.stack(job)
      stored = job[Dialect.current.callbacks]
      return [] if stored.nil?

      entries = Dialect.current.gem.configuration.callback_storage.retrieve(stored)
      raise InvalidCallbacks, "The callback stack is not an array" unless entries.is_a?(Array)

      # Each entry is a barrier that one script reads while Redis does nothing else.
      too_many = entries.size > MAX_ENTRIES
      raise InvalidCallbacks, "The callback stack has #{entries.size} entries, more than #{MAX_ENTRIES}" if too_many

      # The gem here may have any storage; other workers may write references.
      entries = CallbackStorage.reader.retrieve_started(entries) if CallbackStorage.chains(entries).any?
      entries.map { |entry| read(entry) }
    end

    # Barrier ids become Redis keys, so only a UUID is accepted.
    def self.read(entry)
      barrier, remaining, propagate = entry
      readable = barrier.is_a?(String) && barrier.match?(UUID) && (remaining.nil? || remaining.is_a?(Hash)) &&
        entry.size == 3 && [true, false].include?(propagate)
      raise InvalidCallbacks, "The callback stack cannot be read: #{entry.inspect[0, 200]}" unless readable

      new(barrier, remaining, propagate)
    end

    # Whether it has no tree, or a reference to a tree that another job will start.
    def read_later?
      remaining.nil? || remaining["__type__"] == "reference"
    end

    # The counter, the marker of the release, and the set of units counted.
    def keys
      [barrier, "#{barrier}_ran", "#{barrier}:u"]
    end

    # What the advance does when the barrier is down: "f" fires a continuation, "n"
    # goes on with the next callback below, "s" stops.
    def kind
      # An empty continuation completes at once.
      return Tree.completes_at_once?(remaining) ? "n" : "f" if remaining

      propagate ? "n" : "s"
    end
  end
end
