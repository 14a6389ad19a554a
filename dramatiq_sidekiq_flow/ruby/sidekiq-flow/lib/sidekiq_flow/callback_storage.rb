# frozen_string_literal: true

module SidekiqFlow::Companion
  # Stores the rest of long chains once, in Redis; payloads refer to it. Each step of
  # a long chain then costs the same, however many steps follow. It works with the
  # gem alone, too:
  #
  #   Sidekiq::Workflow.configure do |cfg|
  #     cfg.callback_storage = SidekiqFlow::CallbackStorage.new
  #   end
  #
  # Every Ruby worker must have it before Python's RedisCallbackStorage is in use.
  # Keys and values are those of Python (see wire/references.py), apart from the
  # order of a job's keys.
  class CallbackStorage
    # Chains that a thread remembers: the next one to store is mostly the rest of one
    # of them.
    RECENT = 8

    # Seconds by which a stored chain outlives the barriers that lead to it.
    MARGIN = 86_400

    # Seconds between two extensions of a chain's TTL by one process.
    EXTEND_EVERY = 3600

    # Chains whose last extension a process remembers.
    EXTENDED = 10_000

    # JSON bytes of a chain besides its children.
    FRAME = 35

    SHA = /\A[0-9a-f]{64}\z/

    # Steps, and the reference to the rest of the chain from each of them.
    Chain = Struct.new(:children, :references) do
      def rest_from(sha)
        index = references.index { |reference| reference["sha"] == sha }
        {"__type__" => "chain", "children" => children.drop(index)} if index
      end

      # The reference to the last steps of this chain.
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
      @extended = {}
    end

    # Returns the form of a stack that a payload carries.
    def store(callbacks)
      callbacks.map do |barrier, remaining, propagate|
        [barrier, remaining && shorten(remaining, callbacks), propagate]
      end
    end

    # Returns the stack, with complete trees, for the form that a payload carries.
    def retrieve(stored)
      return stored unless stored.is_a?(Array)

      stored.map do |entry|
        barrier, remaining, propagate = entry
        reference?(remaining) ? [barrier, whole(remaining), propagate] : entry
      end
    end

    # As retrieve, for a job that may start one tree of its stack: the first one from the
    # top that has jobs. The references below it are passed on as they are.
    def retrieve_started(stored)
      started = stored.rindex { |_, remaining| reference?(remaining) || Tree.job?(remaining) } || 0
      stored.each { |_, remaining| keep(remaining) if reference?(remaining) }
      stored[0...started] + retrieve(stored[started..])
    end

    private

    def shorten(remaining, callbacks)
      return remaining unless remaining["__type__"] == "chain" && !Tree.completes_at_once?(remaining)

      children = remaining["children"]
      known = find_recent { |chain| chain.reference_to(children) }
      # It may have expired: then it is stored again.
      return known if known && exists?(known)

      json = children.map { |child| JSON.generate(child) }
      return remaining if json.sum { |text| text.bytesize + 1 } + FRAME < @min_bytes

      write(children, json, callbacks)
    end

    def exists?(reference)
      redis { |conn| conn.call("EXISTS", "swf:callbacks:#{reference["chain"]}") } == 1
    end

    def write(children, json, callbacks)
      # Steps at the end that have nothing to run are left out.
      last = children.rindex { |child| !Tree.completes_at_once?(child) }
      values, shas = hashed(json[0..last])
      delay = children.sum { |child| Tree.total_delay(child) }
      references = shas.each_with_index.map { |sha, index| reference(shas.first, index, sha, delay) }
      remember(Chain.new(children, references)) if last == children.size - 1
      ttl = Lifetimes.barrier_ttl(nil, callbacks.map { |entry| Callback.new(*entry) }) + MARGIN
      run("store_callbacks", references.first, ttl, *values)
      references.first
    end

    # The values of a chain's hash, and the SHA-256 of each: a value begins with the
    # SHA-256 of the next.
    def hashed(json)
      shas = [""]
      values = json.reverse.map do |text|
        value = "#{shas.first}:#{text}"
        shas.unshift(Digest::SHA256.hexdigest(value))
        value
      end
      [values.reverse, shas[0..-2]]
    end

    def reference?(remaining)
      remaining.is_a?(Hash) && remaining["__type__"] == "reference"
    end

    # Extends the TTL of a chain, which need not be read for that.
    def keep(reference)
      unless readable?(reference)
        raise InvalidCallbacks, "The callback stack cannot be read: #{reference.inspect[0, 200]}"
      end

      extend_ttl(reference)
    end

    def whole(reference)
      keep(reference)
      find_recent { |chain| chain.rest_from(reference["sha"]) } || read(reference)
    end

    def readable?(reference)
      chain, sha, at = reference.values_at("chain", "sha", "at")
      [chain, sha].all?(SHA) && at.is_a?(Integer) && at.between?(0, 2**53) && Tree.delay?(reference.fetch("delay", 0))
    end

    def read(reference)
      values = run("read_callbacks", reference, ttl(reference), reference["at"], 1_000_000_000, 1 << 40)
      references = []
      children = []
      following = reference
      values.each do |value|
        check_value(value, following)
        references << following
        sha, text = value.split(":", 2)
        children << stored_child(text, following)
        following = reference(following["chain"], following["at"] + 1, sha, reference.fetch("delay", 0))
      end
      unless following["sha"] == ""
        raise CallbacksMissing, "The Redis key \"swf:callbacks:#{reference["chain"]}\" has no step " \
          "#{following["at"]}, so the run cannot continue from here. It expired, or it was deleted."
      end
      remember(Chain.new(children, references))
      {"__type__" => "chain", "children" => children}
    end

    def check_value(value, reference)
      return if Digest::SHA256.hexdigest(value) == reference["sha"]

      raise CallbacksMissing, "Step #{reference["at"]} of the stored chain #{reference["chain"]} is not what was " \
        "stored there."
    end

    def stored_child(text, reference)
      JSON.parse(text.to_s)
    rescue JSON::JSONError, EncodingError
      raise InvalidNode, "Step #{reference["at"]} of the stored chain #{reference["chain"]} is not JSON: " \
        "#{text.inspect[0, 200]}"
    end

    # Extends the TTL of a chain whose run moves.
    def extend_ttl(reference)
      now = ::Process.clock_gettime(::Process::CLOCK_MONOTONIC)
      chain = reference["chain"]
      return if @extended[chain] && now - @extended[chain] < EXTEND_EVERY

      run("read_callbacks", reference, ttl(reference), 0, 0, 0)
      @extended = {} if @extended.size > EXTENDED
      @extended[chain] = now
    end

    def ttl(reference)
      Lifetimes::RETRY_HORIZON + (reference.fetch("delay", 0) / 1000.0).to_i + 1 + MARGIN
    end

    def reference(chain, at, sha, delay)
      found = {"__type__" => "reference", "chain" => chain, "at" => at, "sha" => sha}
      found["delay"] = ((delay == delay.to_i) ? delay.to_i : delay) unless delay.zero?
      found
    end

    def run(script, reference, *arguments)
      redis { |conn| Scripts.run(conn, script, ["swf:callbacks:#{reference["chain"]}"], arguments) }
    end

    # A worker waits until the server answers; in other processes, the application
    # decides what to do about an error.
    def redis(&block)
      return Sidekiq.redis(&block) if Unit.current.nil?

      Trouble.patiently(Sidekiq.logger) { Sidekiq.redis(&block) }
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
