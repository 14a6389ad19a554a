# frozen_string_literal: true

module SidekiqFlow
  # A job of a Python actor was taken by a Ruby process. An ordinary failure: it is
  # retried, and Python may be the one to take it then.
  class WrongQueue < StandardError
    def self.for(job, queue)
      new("This Ruby process takes from queue #{queue.inspect}, and job #{job["jid"]} is one of the Python actor #{job["wrapped"].inspect}. " \
        "One queue, one language: give the actor a queue_name of its own, or take #{queue.inspect} from this process.")
    end
  end
end
