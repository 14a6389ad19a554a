# frozen_string_literal: true

module SidekiqFlow::Companion
  # The run cannot continue, and trying again would not help: the job goes to
  # `dead`, with the name of the error as its error class, where a user can retry
  # it.
  class Refused < StandardError; end

  class BarrierExpired < Refused; end

  class CallbacksMissing < Refused; end

  class CommandRefused < Refused; end

  class InvalidCallbacks < Refused; end

  class InvalidNode < Refused; end

  class InvalidPayload < Refused; end

  class MalformedPayload < InvalidPayload; end

  class OtherDialect < Refused; end

  class PoisonPill < Refused; end

  class PushStopped < Refused; end

  class StepDiscarded < Refused; end

  class StepSkipped < Refused; end

  class WrongType < Refused
    def self.of(key)
      new("The Redis key #{key.inspect} holds another type. Remove it.")
    end
  end

  # A workflow, or one of its options, cannot be run; nothing is written.
  class InvalidWorkflow < ArgumentError; end

  # Raised at boot: this process has a Sidekiq or a gem that the companion cannot
  # work with.
  class Unsupported < StandardError; end
end
