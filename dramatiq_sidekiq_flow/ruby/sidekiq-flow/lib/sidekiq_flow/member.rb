# frozen_string_literal: true

module SidekiqFlow::Companion
  # The names under which processes are registered, one for each of their queues:
  # HOST:PID:NONCE:QUEUE.
  module Member
    module_function

    # HOST:PID:NONCE of this process.
    def identity
      component = Object.new.extend(Sidekiq::Component)
      "#{component.hostname.tr(":", "-")}:#{::Process.pid}:#{component.process_nonce}"
    end

    # The hash of the jobs that a member has in flight.
    def in_flight(member)
      "swf:inflight:#{member}"
    end

    def queue(member)
      member.split(":", 4).fetch(3)
    end

    # Whether it is a name of this form. Nothing can be in flight under another.
    def valid?(member)
      member.valid_encoding? && member.split(":", 4).size == 4
    end
  end
end
