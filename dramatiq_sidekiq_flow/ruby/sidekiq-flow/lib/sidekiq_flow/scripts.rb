# frozen_string_literal: true

module SidekiqFlow::Companion
  # Sends the Lua scripts by their SHA, as Python does.
  module Scripts
    SOURCES = LUA
    SHAS = SOURCES.transform_values { |source| Digest::SHA1.hexdigest(source) }.freeze

    # Returns the script's reply. +conn+ is what config.redis yields.
    def self.run(conn, name, keys, arguments)
      conn.call("EVALSHA", SHAS.fetch(name), keys.size, *keys, *arguments)
    rescue RedisClient::CommandError => error
      raise unless error.message.start_with?("NOSCRIPT")

      conn.call("EVAL", SOURCES.fetch(name), keys.size, *keys, *arguments)
    end
  end
end
