"""What comes before every act: is the resource being deleted or suspended, and does it alone own its target?"""
