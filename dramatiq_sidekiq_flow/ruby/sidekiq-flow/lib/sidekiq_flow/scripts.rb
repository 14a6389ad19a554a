# frozen_string_literal: true

module SidekiqFlow::Companion
  # Sends the Lua scripts by their SHA, as Python does.
  module Scripts
    SOURCES = LUA
    SHAS = SOURCES.transform_values { |source| Digest::SHA1.hexdigest(source) }.freeze

    # Returns the script's reply. +conn+ is what config.redis yields.
    def self.run(conn, name, keys, arguments)
      send_with(:call, conn, name, keys, arguments)
    end

    # The same, and does not send it again if the connection is lost.
    def self.run_once(conn, name, keys, arguments)
      send_with(:call_once, conn, name, keys, arguments)
    end

    def self.send_with(method, conn, name, keys, arguments)
      conn.public_send(method, "EVALSHA", SHAS.fetch(name), keys.size, *keys, *arguments)
    rescue RedisClient::CommandError => error
      raise unless error.message.start_with?("NOSCRIPT")

      conn.public_send(method, "EVAL", SOURCES.fetch(name), keys.size, *keys, *arguments)
    end
    private_class_method :send_with
  end
end
