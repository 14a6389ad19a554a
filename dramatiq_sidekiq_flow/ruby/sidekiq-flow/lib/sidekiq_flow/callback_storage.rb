# frozen_string_literal: true

module SidekiqFlow::Companion
  # Keeps what remains of long chains once, in Redis; payloads refer to it. A
  # chain of thousands then costs a step as much at its beginning as at its end.
  # With the gem alone, too:
  #
  #   Sidekiq::Workflow.configure do |cfg|
  #     cfg.callback_storage = SidekiqFlow::CallbackStorage.new
  #   end
  #
  # Every Ruby worker must have it before Python's RedisCallbackStorage is in use.
  # Keys and values are Python's (wire/references.py says what they are), but for
  # the order of a job's keys.
  class CallbackStorage
    # Of chains that a thread has seen last: what the gem stores next is, most
    # often, the rest of one of them.
    RECENT = 8

    # A stored chain outlives the barriers that lead to it, by so many seconds.
    MARGIN = 86_400

    # Seconds between two prolongations of one chain by one process.
    KEEP_EVERY = 3600

    SHA = /\A[0-9a-f]{64}\z/

    # Steps, and the reference to the rest of the chain from each of them.
    Chain = Struct.new(:children, :references) do
      def rest_from(sha)
        index = references.index { |reference| reference["sha"] == sha }
        {"__type__" => "chain", "children" => children.drop(index)} if index
      end

      # The reference to steps that are the last ones of this chain.
      def reference_to(steps)
        from = children.size - steps.size
        references[from] if from >= 0 && (steps.equal?(children) || children.drop(from) == steps)
      end
    end

    class << self
      # For references that the gem's own storage has left in a stack.
      def reader
        @reader ||= new
      end

      # The Redis keys that a stored stack refers to.
      def chains(stored)
        return [] unless stored.is_a?(Array)

        stored.filter_map do |_, remaining|
          "swf:callbacks:#{remaining["chain"]}" if remaining.is_a?(Hash) && remaining["__type__"] == "reference"
        end
      end
    end

    # min_bytes  the JSON size from which the rest of a chain is stored; a
    #            shorter one travels in the payload
    def initialize(min_bytes: 2048)
      @min_bytes = min_bytes
      @kept = {}
    end

    # What is written into a payload for a stack.
    def store(callbacks)
      callbacks.map { |barrier, remaining, propagate| [barrier, remaining && shorten(remaining, callbacks), propagate] }
    end

    # The stack for what is written in a payload, with complete trees.
    def retrieve(stored)
      return stored unless stored.is_a?(Array)

      stored.map do |entry|
        barrier, remaining, propagate = entry
        next entry unless remaining.is_a?(Hash) && remaining["__type__"] == "reference"

        [barrier, whole(remaining), propagate]
      end
    end

    private

    def shorten(remaining, callbacks)
      return remaining unless remaining["__type__"] == "chain" && !Plan.completes_at_once?(remaining)

      children = remaining["children"]
      known = find_recent { |chain| chain.reference_to(children) }
      # It may be long since: what is gone is stored again.
      return known if known && redis { |conn| conn.call("EXISTS", "swf:callbacks:#{known["chain"]}") } == 1

      json = children.map { |child| JSON.generate(child) }
      return remaining if json.sum { |text| text.bytesize + 1 } + 35 < @min_bytes

      write(children, json, callbacks)
    end

    def write(children, json, callbacks)
      # Steps at the end that have nothing to run are left out.
      last = children.rindex { |child| !Plan.completes_at_once?(child) }
      shas = [""]
      values = json[0..last].reverse.map do |text|
        value = "#{shas.first}:#{text}"
        shas.unshift(Digest::SHA256.hexdigest(value))
        value
      end
      delay = children.sum { |child| Plan.total_delay(child) }
      references = shas[0..-2].each_with_index.map { |sha, index| reference(shas.first, index, sha, delay) }
      remember(Chain.new(children, references)) if last == children.size - 1
      ttl = Plan.barrier_ttl(nil, callbacks.map { |entry| Callback.new(*entry) }) + MARGIN
      run("store_callbacks", references.first, ttl, *values.reverse)
      references.first
    end

    def whole(reference)
      delay = reference.fetch("delay", 0)
      at = reference["at"]
      unless [reference["chain"], reference["sha"]].all?(SHA) && at.is_a?(Integer) && at.between?(0, 2**53) && Plan.delay?(delay)
        raise InvalidCallbacks, "The callback stack cannot be read: #{reference.inspect[0, 200]}"
      end
      keep(reference)
      find_recent { |chain| chain.rest_from(reference["sha"]) } || read(reference)
    end

    def read(reference)
      values = run("read_callbacks", reference, ttl(reference), reference["at"], 1_000_000_000, 1 << 40)
      references = []
      children = []
      following = reference
      values.each do |value|
        unless Digest::SHA256.hexdigest(value) == following["sha"]
          raise CallbacksMissing, "Step #{following["at"]} of the stored chain #{reference["chain"]} is not what was stored there."
        end
        references << following
        sha, text = value.split(":", 2)
        children << stored_child(text, following)
        following = reference(following["chain"], following["at"] + 1, sha, reference.fetch("delay", 0))
      end
      unless following["sha"] == ""
        raise CallbacksMissing, "The Redis key \"swf:callbacks:#{reference["chain"]}\" has no step #{following["at"]}, so the run " \
          "cannot go on from here. It expired, or it was deleted."
      end
      remember(Chain.new(children, references))
      {"__type__" => "chain", "children" => children}
    end

    def stored_child(text, reference)
      JSON.parse(text.to_s)
    rescue JSON::JSONError, EncodingError
      raise InvalidNode, "Step #{reference["at"]} of the stored chain #{reference["chain"]} is not JSON: #{text.inspect[0, 200]}"
    end

    # Prolongs the life of a chain whose run moves.
    def keep(reference)
      now = ::Process.clock_gettime(::Process::CLOCK_MONOTONIC)
      chain = reference["chain"]
      return if @kept[chain] && now - @kept[chain] < KEEP_EVERY

      run("read_callbacks", reference, ttl(reference), 0, 0, 0)
      @kept = {} if @kept.size > 10_000
      @kept[chain] = now
    end

    def ttl(reference)
      RETRY_HORIZON + (reference.fetch("delay", 0) / 1000.0).to_i + 1 + MARGIN
    end

    def reference(chain, at, sha, delay)
      found = {"__type__" => "reference", "chain" => chain, "at" => at, "sha" => sha}
      found["delay"] = ((delay == delay.to_i) ? delay.to_i : delay) unless delay.zero?
      found
    end

    def run(script, reference, *arguments)
      redis { |conn| Scripts.run(conn, script, ["swf:callbacks:#{reference["chain"]}"], arguments) }
    end

    # A worker waits for its server; for others, the application decides.
    def redis(&block)
      return Sidekiq.redis(&block) if Unit.current.nil?

      SidekiqFlow::Companion.patiently(Sidekiq.logger) { Sidekiq.redis(&block) }
    end

    def find_recent
      recent.each_with_index do |chain, index|
        found = yield chain
        next if found.nil?

        recent.unshift(recent.delete_at(index))
        return found
      end
      nil
    end

    def recent
      Thread.current[:flow_recent_chains] ||= []
    end

    def remember(chain)
      recent.unshift(chain)
      recent.pop if recent.size > RECENT
    end
  end
end
