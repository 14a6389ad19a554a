# frozen_string_literal: true

module SidekiqFlow::Companion
  # Tells apart the errors of Redis. Some are about the server (unreachable, not a
  # master, out of memory, busy, refusing our login): they pass, so the companion
  # keeps its jobs, waits, and tries again. The others are about the command: trying
  # again does not help.
  module Trouble
    CODES = %w[
      READONLY LOADING MASTERDOWN NOREPLICAS MISCONF OOM BUSY TRYAGAIN UNBLOCKED
      CLUSTERDOWN NOAUTH WRONGPASS NOPERM
    ].freeze

    # Before Redis 7, an error in a script follows a prefix.
    PREFIX = /-?(?:ERR Error running script .*?: -?|EXECABORT .*?: -?)?/m
    SERVER = /\A#{PREFIX}(?:#{CODES.join("|")})\b/m
    OTHERS = /max number of clients|ACL failure in script|user executing the script/

    # Seconds between two log lines.
    LOG_EVERY = 1

    # The first and the longest pause between two attempts, in seconds.
    PAUSE = 0.1
    MAX_PAUSE = 2

    class << self
      # Runs the block until the server answers, so the block must be safe to run
      # twice. Raises Refused if the server refuses the command for good.
      def patiently(logger)
        pause = PAUSE
        begin
          yield
        rescue RedisClient::Error, ConnectionPool::TimeoutError => error
          raise refusal(error) unless passes?(error)

          log(logger, error)
          sleep(pause)
          pause = [2 * pause, MAX_PAUSE].min
          retry
        end
      end

      # Whether an error is about the server, and so worth waiting for.
      def passes?(error)
        case error
        when RedisClient::ConnectionError, ConnectionPool::TimeoutError then true
        when RedisClient::CommandError then error.message.match?(SERVER) || error.message.match?(OTHERS)
        else false
        end
      end

      # Logs an error that passes, once for all threads that wait.
      def log(logger, error)
        now = ::Process.clock_gettime(::Process::CLOCK_MONOTONIC)
        return if @logged && now - @logged < LOG_EVERY

        @logged = now
        logger.warn("Redis cannot serve this process now, trying again: #{error.class}: #{error.message}")
      end

      private

      def refusal(error)
        kind = error.message.match?(/\bWRONGTYPE\b/) ? WrongType : CommandRefused
        kind.new("Redis refused a command: #{error.message}")
      end
    end
  end
end
