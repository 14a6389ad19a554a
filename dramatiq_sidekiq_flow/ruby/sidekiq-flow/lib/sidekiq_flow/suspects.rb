# frozen_string_literal: true

module SidekiqFlow::Companion
  # Jobs that were running in more than one worker that died (see recover.lua).
  # Each is tried while no other suspect of its queue runs: a job that kills its
  # worker is then found, and no other suspect is counted for that death.
  class Suspects
    include Sidekiq::Component

    # Seconds after which a trial that still runs blocks no other.
    TRIAL_TIME = 60

    # Whether a receipt is that of a suspect.
    def self.receipt?(receipt)
      receipt.end_with?("!")
    end

    def initialize(config, timeout)
      @config = config
      @timeout = timeout
      @lock = Mutex.new
      @holders = Hash.new { |members, queue| members[queue] = [] }
    end

    # Dead workers that hold suspects of a queue.
    def holders(queue)
      @lock.synchronize { @holders[queue].dup }
    end

    def add(queue, dead)
      @lock.synchronize { @holders[queue] << dead }
    end

    # Forgets a holder until a heartbeat finds it again.
    def forget(queue, dead)
      @lock.synchronize { @holders[queue].delete(dead) }
    end

    def clear
      @lock.synchronize { @holders.clear }
    end

    # Takes a suspect of a dead worker into flight as BASE:1. Returns its payload, or
    # nil if none is to be tried now (see trial.lua).
    def try(queue, dead, own, base)
      keys = [Worker::WORKERS, Member.in_flight(dead), Member.in_flight(own), "swf:trial:#{queue}", "paused"]
      arguments = [dead, own, queue, @timeout.to_s, base, TRIAL_TIME]
      payload = Replies.trial(redis { |conn| Scripts.run(conn, "trial", keys, arguments) })
      payload if payload && begin_trial(own, base)
    end

    private

    # From here on the job counts as begun, should this process die.
    def begin_trial(own, base)
      Trouble.patiently(logger) do
        redis { |conn| Scripts.run(conn, "begin", [Member.in_flight(own)], ["#{base}:1?"]) } == 1
      end
    end
  end
end
