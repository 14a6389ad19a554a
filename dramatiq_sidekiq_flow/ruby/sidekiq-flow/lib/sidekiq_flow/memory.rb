# frozen_string_literal: true

module SidekiqFlow::Companion
  # Where the outputs of a run's steps are kept: the hash KEY_PREFIX:RUN_ID, for
  # +ttl+ seconds.
  Memory = Struct.new(:key_prefix, :ttl) do
    class << self
      # The option +memory+ of +configure+: a hash, false for none, or nil for
      # the memory of the gem.
      attr_writer :option

      # The memory in use, or nil. Resolved at the first use, since the gem may be
      # configured after the companion.
      def current
        return @current if defined?(@current)

        @current = resolve
      end

      # The key of the memory of a job's run; "" if there is none.
      def key_for(job)
        id = Run.id(job)
        (current && id.is_a?(String) && !id.empty?) ? "#{current.key_prefix}:#{id}" : ""
      end

      private

      def resolve
        return nil if @option == false
        return of_gem(Dialect.current.gem.configuration.memory) if @option.nil?

        new(@option.fetch(:key_prefix, Dialect.current.memory_prefix), @option.fetch(:ttl, 86_400))
      end

      # The gem's RedisHashMemory has no readers for its settings.
      def of_gem(memory)
        return nil if memory.nil?

        prefix = memory.instance_variable_get(:@key_prefix)
        ttl = memory.instance_variable_get(:@ttl)
        return new(prefix, Integer(ttl)) if prefix && ttl

        raise ArgumentError, "#{memory.class} is not a RedisHashMemory: pass memory: {key_prefix: ..., ttl: ...} " \
          "to SidekiqFlow::Companion.configure"
      end
    end
  end
end
