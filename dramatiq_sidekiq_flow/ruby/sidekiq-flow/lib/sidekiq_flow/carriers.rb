# frozen_string_literal: true

require_relative "wrong_queue"

module SidekiqFlow
  # Server middleware that refuses Python's steps: those whose name is not a Ruby
  # constant travel as the gem's no-op, which would skip their work.
  class Carriers
    include Sidekiq::ServerMiddleware

    NOOPS = %w[Sidekiq::Workflow::NoopWorker Sidekiq::Sideline::NoopWorker].freeze

    def call(_job_instance, job, queue)
      raise WrongQueue.for(job, queue) if NOOPS.include?(job["class"]) && job["wrapped"]

      yield
    end
  end
end
