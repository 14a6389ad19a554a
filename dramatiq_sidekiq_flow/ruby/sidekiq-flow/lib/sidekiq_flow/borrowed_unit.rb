# frozen_string_literal: true

module SidekiqFlow::Companion
  # A job that another fetcher took (Sidekiq Pro's super_fetch), or that runs
  # inline. It is put into flight for its advance.
  class BorrowedUnit
    attr_reader :config, :queue_name, :job

    def initialize(config, queue_name, job)
      @config = config
      @queue_name = queue_name
      @job = Sidekiq.dump_json(job)
      @key = "swf:borrowed:#{SecureRandom.hex(12)}"
      Trouble.patiently(config.logger) do
        config.redis do |conn|
          conn.multi do |transaction|
            transaction.call("HSET", @key, "1", @job)
            transaction.call("EXPIRE", @key, 3600)
          end
        end
      end
    end

    def advance(keys, arguments)
      Replies.advance(run("advance", keys, arguments))
    end

    def replace_step(keys, arguments)
      Replies.replace(run("replace", keys, arguments))
    end

    private

    def run(script, keys, arguments)
      config.redis { |conn| Scripts.run(conn, script, [@key, *keys], ["1", *arguments]) }
    end
  end
end
