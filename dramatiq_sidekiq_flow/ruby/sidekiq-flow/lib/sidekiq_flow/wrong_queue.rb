# frozen_string_literal: true

module SidekiqFlow
  # A Ruby process took a job of a Python actor. An ordinary failure: the job is
  # retried, and Python may take it then.
  class WrongQueue < StandardError
    def self.for(job, queue)
      new("This Ruby process takes from queue #{queue.inspect}, and job #{job["jid"]} belongs to the Python actor " \
        "#{job["wrapped"].inspect}. One queue, one language: give the actor a queue_name of its own, or take " \
        "#{queue.inspect} from this process.")
    end
  end
end
