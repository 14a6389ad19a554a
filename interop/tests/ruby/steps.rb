# frozen_string_literal: true

# Ruby steps that the tests of this folder need beside those of jobs.rb.

module Rb
  # Ends when the test says so, by pushing to the list of this name.
  class Gate
    include Sidekiq::Job
    sidekiq_options queue: "ruby"

    def perform(name)
      opened = Sidekiq.redis { |conn| conn.blocking_call(62, "BLPOP", name, 60) }
      raise "nobody opened #{name}" unless opened

      nil
    end
  end

  # Its process is killed when the gem has counted its barrier, and is about to push what follows.
  class KilledBeforePush
    include Sidekiq::Job
    sidekiq_options queue: "ruby"

    module Push
      def push(item)
        Process.kill(:KILL, Process.pid) && sleep if Thread.current[:killed_before_push]
        super
      end

      def raw_push(payloads)
        Process.kill(:KILL, Process.pid) && sleep if Thread.current[:killed_before_push]
        super
      end
    end

    Sidekiq::Client.prepend(Push)

    def perform
      Thread.current[:killed_before_push] = true
      nil
    end
  end

  # What the run's memory held, as Ruby understood it.
  class Echo
    include Sidekiq::Job
    include Sidekiq::Workflow::TypedJob
    sidekiq_options queue: "ruby"

    FIELDS = {text: String, nested: Hash, list: Array, large: Integer, negative: Integer, float: Float, tiny: Float, huge: Float}.freeze

    class Input < Sidekiq::Workflow::Schema
      FIELDS.each { |name, type| required name, type }
    end

    def perform(input)
      {"echo" => FIELDS.keys.to_h { |name| [name.to_s, input.public_send(name)] }}
    end
  end
end
