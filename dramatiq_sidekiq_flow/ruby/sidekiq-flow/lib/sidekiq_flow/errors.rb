# frozen_string_literal: true

module SidekiqFlow::Companion
  # The run cannot go on, and trying again could not help: the job goes to
  # `dead` under the name of the error, where a person can retry it.
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

  class WrongType < Refused; end
end
