# frozen_string_literal: true

module Sidekiq
  module Workflow
    # Holds the place of an empty chain or group that is delayed. Takes any
    # arguments, because a step for another language may travel in its name.
    class NoopWorker
      include Sidekiq::Job

      sidekiq_options retry: 0

      def perform(*)
      end
    end
  end
end
