# frozen_string_literal: true

module Sidekiq
  module Workflow
    # Where a job's callback stack is kept. What +store+ returns is written
    # into the payload; +retrieve+ gets that back.
    module CallbackStorage
      class InlineCallbackStorage
        def store(callbacks)
          callbacks
        end

        def retrieve(stored)
          stored
        end
      end
    end
  end
end
