# frozen_string_literal: true

module SidekiqFlow::Companion
  # A job that came by another way than Fetch: Sidekiq Pro's super_fetch, or
  # performed inline. It is put into flight for the moment of its advance.
  class BorrowedUnit
    attr_reader :config, :queue_name, :job

    def initialize(config, queue_name, job)
      @config = config
      @queue_name = queue_name
      @job = Sidekiq.dump_json(job)
      @key = "swf:borrowed:#{SecureRandom.hex(12)}"
      SidekiqFlow::Companion.patiently(config.logger) do
        config.redis do |conn|
          conn.multi do |transaction|
            transaction.call("HSET", @key, "1", @job)
            transaction.call("EXPIRE", @key, 3600)
          end
        end
      end
    end

    def advance(keys, arguments)
      config.redis { |conn| Scripts.run(conn, "advance", [@key, *keys], ["1", *arguments]) }
    end
  end
end
