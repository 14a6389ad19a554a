# frozen_string_literal: true

require_relative "wrong_queue"

module SidekiqFlow
  # Server middleware: Python's steps without a name that Ruby can have travel as
  # the gem's no-op, which must not perform them.
  class Carriers
    include Sidekiq::ServerMiddleware

    NOOPS = %w[Sidekiq::Workflow::NoopWorker Sidekiq::Sideline::NoopWorker].freeze

    def call(_job_instance, job, queue)
      raise WrongQueue.for(job, queue) if NOOPS.include?(job["class"]) && job["wrapped"]

      yield
    end
  end
end
