# frozen_string_literal: true

module SidekiqFlow::Companion
  # What an error of Redis speaks of. Of the server (it cannot be reached, is no
  # master, is full, is busy, does not know us): then it is waited out, and nothing
  # is forgotten in between. Of the command: then trying again does not help.
  module Trouble
    CODES = "READONLY|LOADING|MASTERDOWN|NOREPLICAS|MISCONF|OOM|BUSY|TRYAGAIN|UNBLOCKED|CLUSTERDOWN|NOAUTH|WRONGPASS|NOPERM"

    # Before Redis 7, what goes wrong in a script stands behind words of its own.
    SERVER = /\A-?(?:ERR Error running script .*?: -?|EXECABORT .*?: -?)?(?:#{CODES})\b/m
    OTHERS = /max number of clients|ACL failure in script|user executing the script/

    # Seconds between two lines of the log.
    EVERY = 1

    module_function

    def passes?(error)
      case error
      when RedisClient::ConnectionError, ConnectionPool::TimeoutError then true
      when RedisClient::CommandError then error.message.match?(SERVER) || error.message.match?(OTHERS)
      else false
      end
    end

    # What the job is refused with, for an error that does not pass.
    def refusal(error)
      kind = error.message.match?(/\bWRONGTYPE\b/) ? WrongType : CommandRefused
      kind.new("Redis refused a command: #{error.message}")
    end

    # Says so once, however many threads wait.
    def say(logger, error)
      now = ::Process.clock_gettime(::Process::CLOCK_MONOTONIC)
      return if @said && now - @said < EVERY

      @said = now
      logger.warn("Redis cannot do it now, trying again: #{error.class}: #{error.message}")
    end
  end

  class << self
    # Runs the block until the server answers. Only for what may be sent twice.
    # What the server refuses for good is raised as Refused.
    def patiently(logger)
      pause = 0.1
      begin
        yield
      rescue RedisClient::Error, ConnectionPool::TimeoutError => error
        raise Trouble.refusal(error) unless Trouble.passes?(error)

        Trouble.say(logger, error)
        sleep(pause)
        pause = [2 * pause, 2].min
        retry
      end
    end
  end
end
