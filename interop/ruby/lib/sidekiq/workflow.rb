# frozen_string_literal: true

# A stand-in for the gem sidekiq-workflow, for tests on machines where the gem
# is not to be had. Written from the gem's documented behaviour and from
# recordings of what it leaves in Redis (interop/recordings; replay.rb compares
# the two). It keeps the gem's known faults too: tests of the other language
# must meet in it what they will meet in production.

require "sidekiq"
require "sidekiq/workflow/nodes"
require "sidekiq/workflow/serialize"
require "sidekiq/workflow/barrier"
require "sidekiq/workflow/callback_storage"
require "sidekiq/workflow/memory"
require "sidekiq/workflow/runtime"
require "sidekiq/workflow/workflow"
require "sidekiq/workflow/middleware"
require "sidekiq/workflow/noop_worker"
require "sidekiq/workflow/schema"
require "sidekiq/workflow/typed_job"
require "sidekiq/workflow/templates"

module Sidekiq
  module Workflow
    class Configuration
      attr_accessor :barrier_class, :barrier_ttl, :callback_storage, :memory

      def initialize
        @barrier_class = Barrier::AtMostOnceBarrier
        @barrier_ttl = 86_400
        @callback_storage = CallbackStorage::InlineCallbackStorage.new
        @memory = nil
      end
    end

    class << self
      def configuration
        @configuration ||= Configuration.new
      end

      def configure
        yield configuration
      end

      # Gives the barriers above the running job a fresh TTL. Only inside
      # +perform+: outside there is not a job whose barriers could be meant.
      def extend_ttl!(ttl: nil)
        Runtime.current!.extend_ttl!(ttl || configuration.barrier_ttl)
      end
    end
  end
end
