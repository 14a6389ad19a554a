# frozen_string_literal: true

# A step for tests that make the workers' Redis sick: it keeps its record in
# another one.
#
#   INTEROP_NOTES  its URL

module Rb
  class Note
    include Sidekiq::Job
    sidekiq_options queue: "ruby", retry: 0

    OTHER = RedisClient.config(url: ENV["INTEROP_NOTES"]).new_pool(size: 10)

    def perform(name, seconds = 0)
      sleep(seconds)
      OTHER.call("RPUSH", "notes", name)
      nil
    end
  end
end
