# frozen_string_literal: true

module Sidekiq
  module Workflow
    # Values that the jobs of one run share.
    module Memory
      class RedisHashMemory
        def initialize(ttl: 86_400, key_prefix: "swf:mem")
          @ttl = ttl
          @key_prefix = key_prefix
        end

        def write(run_id, hash, config: Sidekiq.default_configuration)
          return if hash.empty? # HSET without fields is an error

          fields = hash.flat_map { |field, value| [field.to_s, Sidekiq.dump_json(value)] }
          config.redis do |conn|
            conn.call("HSET", key(run_id), *fields)
            conn.call("EXPIRE", key(run_id), @ttl)
          end
        end

        # Only the fields that are there: a stored null is not a missing one.
        def read(run_id, keys:, config: Sidekiq.default_configuration)
          names = keys.map(&:to_s)
          return {} if names.empty?

          values = config.redis { |conn| conn.call("HMGET", key(run_id), *names) }
          names.zip(values).reject { |_, value| value.nil? }.to_h { |name, value| [name, Sidekiq.load_json(value)] }
        end

        def clear(run_id, config: Sidekiq.default_configuration)
          config.redis { |conn| conn.call("DEL", key(run_id)) }
        end

        private

        def key(run_id)
          "#{@key_prefix}:#{run_id}"
        end
      end
    end
  end
end
