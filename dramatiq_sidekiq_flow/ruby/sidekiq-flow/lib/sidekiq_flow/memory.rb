# frozen_string_literal: true

module SidekiqFlow::Companion
  # Where the output of jobs is kept: KEY_PREFIX:RUN_ID, for +ttl+ seconds.
  Memory = Struct.new(:key_prefix, :ttl)

  class << self
    # Read when it is first needed: the gem may be configured after this file.
    def memory
      return @resolved_memory if defined?(@resolved_memory)

      @resolved_memory = resolve_memory
    end

    # Where a job's run keeps what its jobs return; empty where nothing is kept.
    def memory_key(job)
      id = run_id(job)
      (memory && id.is_a?(String) && !id.empty?) ? "#{memory.key_prefix}:#{id}" : ""
    end

    # What a job's run needs in Redis, and for how many seconds from the moment
    # when the job goes on. What cannot be read keeps nothing alive, and keeps no
    # failed job from leaving flight.
    def needs(job)
      stack = Callback.stack(job)
      chains = CallbackStorage.chains(job[dialect.callbacks])
      keys = [*stack.flat_map(&:keys), memory_key(job), *chains].reject(&:empty?)
      [keys, [Plan.barrier_ttl(nil, stack), memory&.ttl || 0].max]
    rescue
      [[], RETRY_HORIZON]
    end

    private

    def resolve_memory
      return nil if @memory == false
      return Memory.new(@memory.fetch(:key_prefix, dialect.memory_prefix), @memory.fetch(:ttl, 86_400)) if @memory

      of_gem = gem.configuration.memory
      return nil if of_gem.nil?

      prefix, ttl = %i[@key_prefix @ttl].map { |name| of_gem.instance_variable_get(name) }
      return Memory.new(prefix, Integer(ttl)) if prefix && ttl

      raise ArgumentError, "#{of_gem.class} is not a RedisHashMemory: say memory: {key_prefix: ..., ttl: ...} to #{name}.configure"
    end
  end
end
