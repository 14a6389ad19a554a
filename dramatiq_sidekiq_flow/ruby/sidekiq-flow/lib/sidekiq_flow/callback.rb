# frozen_string_literal: true

module SidekiqFlow::Companion
  # Entries that a callback stack may have.
  MAX_ENTRIES = 1000

  UUID = /\A\h{8}(-\h{4}){3}-\h{12}\z/

  # One entry of the callback stack: [barrier id, what remains, propagate].
  Callback = Struct.new(:barrier, :remaining, :propagate) do
    # A job's stack, the top last.
    def self.stack(job)
      stored = job[SidekiqFlow::Companion.dialect.callbacks]
      return [] if stored.nil?

      entries = SidekiqFlow::Companion.gem.configuration.callback_storage.retrieve(stored)
      raise InvalidCallbacks, "The callback stack is not an array" unless entries.is_a?(Array)
      # Each is a barrier that one script looks at while Redis does nothing else.
      raise InvalidCallbacks, "The callback stack has #{entries.size} entries, more than #{MAX_ENTRIES}" if entries.size > MAX_ENTRIES

      # Whatever storage the gem has here: other workers may write references.
      entries = CallbackStorage.reader.retrieve(entries) if CallbackStorage.chains(entries).any?
      entries.map do |entry|
        barrier, remaining, propagate = entry
        # Barrier ids become Redis keys, so nothing but a UUID may pass.
        unless barrier.is_a?(String) && barrier.match?(UUID) && (remaining.nil? || remaining.is_a?(Hash)) &&
            entry.size == 3 && [true, false].include?(propagate)
          raise InvalidCallbacks, "The callback stack cannot be read: #{entry.inspect[0, 200]}"
        end
        new(barrier, remaining, propagate)
      end
    end

    # Counter, marker of the release, and the set of units already counted.
    def keys
      [barrier, "#{barrier}_ran", "#{barrier}:u"]
    end

    # f fires a continuation; n goes on with the next one down; s stops.
    def kind
      # What remains may be empty: then it completes at once.
      return Plan.completes_at_once?(remaining) ? "n" : "f" if remaining

      propagate ? "n" : "s"
    end
  end
end
